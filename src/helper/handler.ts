import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError, type Detail, type GrantCode } from '../errors.ts'
import type { HelperClient, RefreshSpender } from './refresh.ts'
import { invalidRequest, readTokenRequest, type TokenRequest } from './request.ts'

export interface HelperOutcome {
  readonly requestId: string
  /** Name of the client, or `none` when the request named none that is configured. */
  readonly client: string
  /** The grant type if it is one the helper knows, else `other`. */
  readonly grant: 'refresh_token' | 'other'
  readonly code: GrantCode | 'ok'
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
}

export interface HelperHandlerOptions {
  readonly clients: readonly HelperClient[]
  readonly spendRefreshToken: RefreshSpender
  readonly record: (outcome: HelperOutcome) => void
  readonly onUnexpected: (error: unknown, requestId: string) => void
  readonly newRequestId: () => string
  /** Whether requests must name this machine: a helper on loopback is asked for by no other name, unless by a browser. */
  readonly loopbackOnly: boolean
}

const NO_STORE = { 'cache-control': 'no-store', pragma: 'no-cache' } as const

/** What is known of the exchange so far, for its one log line. */
interface Progress {
  client: string
  grant: HelperOutcome['grant']
}

/**
 * The handler of the helper listener: a token endpoint (RFC 6749 §3.2) at `POST /oauth2/token` that adds the client's
 * secret. A caller that leaves does not stop a spend under way.
 */
export function createHelperHandler(
  options: HelperHandlerOptions,
): (req: IncomingMessage, res: ServerResponse) => void {
  const { clients, record } = options

  const exchange = async (request: IncomingMessage, progress: Progress): Promise<TokenEndpointResponse> => {
    checkRequest(request)
    checkCaller(request, options.loopbackOnly)
    const tokenRequest = await readTokenRequest(request)
    const client = selectClient(tokenRequest, clients)
    progress.client = client.name
    const { parameters, resources } = tokenRequest
    if (parameters.get('grant_type') !== 'refresh_token') throw unsupportedGrant(parameters.get('grant_type'))
    progress.grant = 'refresh_token'
    const refreshToken = parameters.get('refresh_token')
    if (refreshToken === undefined) throw invalidRequest('The parameter refresh_token is missing.')
    return options.spendRefreshToken(client, { refreshToken, scope: parameters.get('scope'), resources })
  }

  return (request, response) => {
    const startedMs = performance.now()
    const requestId = options.newRequestId()
    const progress: Progress = { client: 'none', grant: 'other' }
    const finish = (code: GrantCode | 'ok', status: number, detail?: Detail) =>
      record({ requestId, ...progress, code, status, durationMs: performance.now() - startedMs, detail })
    response.on('error', () => undefined)
    void exchange(request, progress).then(
      (tokens) => {
        answer(response, 200, { ...tokens })
        finish('ok', 200)
      },
      (error: unknown) => {
        if (!(error instanceof GrantError)) options.onUnexpected(error, requestId)
        const known = error instanceof GrantError ? error : internalError()
        answer(response, known.status, toErrorBody(known), known.headers)
        finish(known.code, known.status, known.detail)
      },
    )
  }
}

function checkRequest({ method, url }: IncomingMessage): void {
  if (url?.split('?', 1)[0] !== '/oauth2/token') throw invalidRequest('There is only POST /oauth2/token here.', 404)
  if (method !== 'POST') throw invalidRequest('The token endpoint takes POST only.', 405)
  if (url.includes('?')) throw invalidRequest('Parameters belong into the body, not into the URL.')
}

const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i

/**
 * Shuts out browsers: no page may make its reader's machine spend grants. They all send `Origin` with a POST, or at least
 * `Sec-Fetch-Site` (other programs send some of the Sec-Fetch fields, too, but not this one); and a page that pointed its
 * own name at this machine shows it in `Host`.
 */
function checkCaller({ headers }: IncomingMessage, loopbackOnly: boolean): void {
  const isPage = headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
  if (!isPage && (!loopbackOnly || LOOPBACK_HOST.test(headers.host ?? ''))) return
  throw new GrantError('origin_refused', {
    status: 403,
    error: 'access_denied',
    description: 'Browsers are not served here.',
  })
}

/** The caller names the client by `client_id`, unless there is only one. Its secret is not the caller's to send. */
function selectClient({ parameters }: TokenRequest, clients: readonly HelperClient[]): HelperClient {
  if (parameters.has('client_secret') || parameters.has('client_assertion')) {
    throw invalidRequest('Client credentials are added here; send none.')
  }
  const clientId = parameters.get('client_id')
  if (clientId === undefined) {
    if (clients.length !== 1) throw invalidRequest('Several clients are configured: name one by client_id.')
    return clients[0] as HelperClient
  }
  const client = clients.find((candidate) => candidate.clientId === clientId)
  if (client === undefined) {
    throw new GrantError('client_unknown', {
      status: 400,
      error: 'invalid_client',
      description: 'No client with this client_id is configured here.',
    })
  }
  return client
}

function unsupportedGrant(grantType: string | undefined): GrantError {
  if (grantType === undefined) return invalidRequest('The parameter grant_type is missing.')
  return new GrantError('grant_not_supported', {
    status: 400,
    error: 'unsupported_grant_type',
    description: 'The only grant_type here is refresh_token.',
  })
}

function internalError(): GrantError {
  return new GrantError('internal_error', { status: 500, error: 'server_error', description: 'An unexpected error.' })
}

/** `code` beside the members of RFC 6749 §5.2 is the same word as in the log and the metrics. */
function toErrorBody({ error, description, members, code }: GrantError): Record<string, unknown> {
  return { ...members, error, error_description: description, code }
}

function answer(
  response: ServerResponse,
  status: number,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.destroyed) return
  const text = JSON.stringify(body)
  response.writeHead(status, {
    ...headers,
    ...NO_STORE,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}
