import { Agent, request, type Dispatcher } from 'undici'

/** Largest response read from an issuer, in bytes; a key set of a hundred RSA keys has a tenth of it. */
const MAX_RESPONSE_BYTES = 1024 * 1024
const CONNECT_TIMEOUT_MS = 3_000
/** Node's own 250 ms gives up on a healthy address family when the network is merely slow. */
const FAMILY_ATTEMPT_TIMEOUT_MS = 1_000

export interface EgressRequest {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string | undefined
  /** From the call to the last byte of the response, in milliseconds. */
  readonly timeoutMs: number
}

export interface EgressResponse {
  readonly status: number
  /** Header fields, names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A request to an issuer that brought no response. `code` is a short word for logs; the text holds no URL. */
export class EgressError extends Error {
  readonly code: string
  /** Whether the connection was never made, so that the issuer cannot have seen the request. */
  readonly unsent: boolean

  constructor(code: string, unsent: boolean) {
    super(`no response from the issuer (${code})`)
    this.name = 'EgressError'
    this.code = code
    this.unsent = unsent
  }
}

/** The only outbound door to issuers. */
export interface Egress {
  /**
   * Sends one request and reads the whole response. Redirects are not followed, and nothing is retried.
   *
   * @throws EgressError when there is no complete response
   */
  send(url: string, request: EgressRequest): Promise<EgressResponse>
  close(): Promise<void>
}

/** Creates the door with its own connections and limits: 3 s to connect, 1 MiB per response. */
export function createEgress(): Egress {
  const agent = new Agent({
    connect: { timeout: CONNECT_TIMEOUT_MS, autoSelectFamilyAttemptTimeout: FAMILY_ATTEMPT_TIMEOUT_MS },
    maxResponseSize: MAX_RESPONSE_BYTES,
    connections: 8,
    keepAliveTimeout: 4_000,
  })
  return {
    send: (url, options) => send(agent, url, options),
    close: () => agent.destroy(),
  }
}

async function send(agent: Agent, url: string, options: EgressRequest): Promise<EgressResponse> {
  try {
    const response = await request(url, {
      dispatcher: agent,
      method: options.method,
      headers: { 'accept-encoding': 'identity', 'user-agent': 'bearward', ...options.headers },
      body: options.body ?? null,
      signal: AbortSignal.timeout(options.timeoutMs),
    })
    const body = await response.body.text()
    return { status: response.statusCode, headers: plainHeaders(response.headers), body }
  } catch (error) {
    throw toEgressError(error)
  }
}

function plainHeaders(headers: Dispatcher.ResponseData['headers']): Record<string, string> {
  const plain: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) plain[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return plain
}

/** Failures that happen before a connection stands. */
const UNSENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** Keeps the code alone: the library's messages and causes can hold addresses and header fields. */
function toEgressError(error: unknown): EgressError {
  const code = readCode(error)
  return new EgressError(code, UNSENT.has(code) || code.startsWith('ERR_TLS') || code.includes('CERT'))
}

function readCode(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  if (error.name === 'TimeoutError') return 'timeout'
  // Several addresses tried and each failed: the first failure stands for all.
  if (error instanceof AggregateError && error.errors.length > 0) return readCode(error.errors[0])
  const code = (error as { code?: unknown }).code
  return typeof code === 'string' ? code : error.name
}
