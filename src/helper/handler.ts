import type { IncomingMessage, ServerResponse } from 'node:http'
import { GrantError, type Detail, type GrantCode } from '../errors.ts'
import { refuseBrowsers, type Caller } from './caller.ts'
import { selectClient, type HelperClient } from './clients.ts'
import { exchange, type ExchangeTools } from './exchange.ts'
import { internalError, invalidRequest } from './grant-errors.ts'
import { readGrant, readGrantName, type GrantName } from './grants.ts'
import { readTokenRequest, type TokenRequest } from './request.ts'
import type { SharedAnswer } from './spending.ts'

export interface HelperOutcome {
  readonly requestId: string
  /** Name of the client, or `none` when the request named none that is configured. */
  readonly client: string
  /** The grant, or `other` when it is none that the helper knows. */
  readonly grant: GrantName | 'other'
  readonly code: GrantCode | 'ok'
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
  /** How, when the answer is one that was got for another request. */
  readonly shared: SharedAnswer | undefined
}

export interface HelperHandlerOptions extends ExchangeTools {
  readonly clients: readonly HelperClient[]
  readonly record: (outcome: HelperOutcome) => void
  readonly onUnexpected: (error: unknown, requestId: string) => void
  readonly newRequestId: () => string
  /** Whether requests must name this machine: a helper on loopback is asked for by no other name, unless by a browser. */
  readonly loopbackOnly: boolean
}

/** What is known of a request so far, for its one log line. */
type Progress = { -readonly [P in 'client' | 'grant' | 'shared']: HelperOutcome[P] }

/** A request that was read: who asks, in the name of which client, for what. */
interface Call {
  readonly caller: Caller
  readonly client: HelperClient
  readonly request: TokenRequest
  readonly progress: Progress
}

type Body = Readonly<Record<string, unknown>>
type Operation = (call: Call, options: HelperHandlerOptions) => Promise<Body>

/** What is served with POST, by path. */
const OPERATIONS: Readonly<Record<string, Operation>> = {
  '/oauth2/token': handOutTokens,
  '/oauth/token': handOutTokens,
}

const NO_STORE = { 'cache-control': 'no-store', pragma: 'no-cache' } as const

/**
 * The handler of the helper listener: the endpoints of an authorization server (RFC 6749 §3.2), with the client's
 * authentication added. A caller that leaves does not stop a spend under way.
 */
export function createHelperHandler(
  options: HelperHandlerOptions,
): (req: IncomingMessage, res: ServerResponse, expectsContinue?: boolean) => void {
  return (request, response, expectsContinue = false) => {
    const startedMs = performance.now()
    const requestId = options.newRequestId()
    const progress: Progress = { client: 'none', grant: 'other', shared: undefined }
    const finish = (code: GrantCode | 'ok', status: number, detail?: Detail) =>
      options.record({ requestId, ...progress, code, status, durationMs: performance.now() - startedMs, detail })
    response.on('error', () => undefined)
    const goOn = () => void (expectsContinue && response.writeContinue())
    void perform(request, progress, options, goOn).then(
      (body) => {
        answer(request, response, { status: 200, body })
        finish('ok', 200)
      },
      (error: unknown) => {
        if (!(error instanceof GrantError)) options.onUnexpected(error, requestId)
        const known = error instanceof GrantError ? error : internalError()
        answer(request, response, { status: known.status, body: toErrorBody(known), headers: known.headers })
        finish(known.code, known.status, known.detail)
      },
    )
  }
}

async function perform(
  request: IncomingMessage,
  progress: Progress,
  options: HelperHandlerOptions,
  goOn: () => void,
): Promise<Body> {
  refuseBrowsers(request, options.loopbackOnly)
  const operation = findOperation(request)
  goOn()
  const tokenRequest = await readTokenRequest(request)
  const client = selectClient(tokenRequest, options.clients)
  progress.client = client.name
  options.spending.limiter.check(client.name, client.rateLimit)
  return operation({ caller: { name: 'local' }, client, request: tokenRequest, progress }, options)
}

function findOperation({ method, url = '' }: IncomingMessage): Operation {
  const path = url.split('?', 1)[0] as string
  const operation = Object.hasOwn(OPERATIONS, path) ? OPERATIONS[path] : undefined
  if (operation === undefined)
    throw invalidRequest('There is no such path here; tokens are at POST /oauth2/token.', 404)
  if (method !== 'POST') throw invalidRequest('This endpoint takes POST only.', 405)
  if (url.includes('?')) throw invalidRequest('Parameters belong into the body, not into the URL.')
  return operation
}

async function handOutTokens({ caller, client, request, progress }: Call, tools: HelperHandlerOptions) {
  progress.grant = readGrantName(request) ?? 'other'
  const onShared = (by: SharedAnswer) => void (progress.shared = by)
  return { ...(await exchange({ client, caller, grant: readGrant(request, client), onShared }, tools)) }
}

/** `code` beside the members of RFC 6749 §5.2 is the same word as in the log and the metrics. */
function toErrorBody({ error, description, members, code }: GrantError): Body {
  return { ...members, error, error_description: description, code }
}

interface Reply {
  readonly status: number
  readonly body: Body
  readonly headers?: Readonly<Record<string, string>> | undefined
}

function answer(request: IncomingMessage, response: ServerResponse, { status, body, headers }: Reply): void {
  if (response.destroyed) return
  const text = JSON.stringify(body)
  // What was not read of a request must not be taken for the next one.
  if (!request.complete) response.shouldKeepAlive = false
  response.writeHead(status, {
    ...headers,
    ...NO_STORE,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}
