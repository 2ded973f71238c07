import type { IncomingMessage, ServerResponse } from 'node:http'
import { GrantError, type Detail, type GrantCode } from '../errors.ts'
import {
  authenticateCaller,
  readShown,
  refuseBrowsers,
  requireClient,
  withShownClient,
  type KnownCaller,
} from './caller.ts'
import { selectClient, type HelperClient } from './clients.ts'
import type { ExchangeTools } from './exchange.ts'
import { internalError, invalidRequest } from './grant-errors.ts'
import { describeHelper } from './metadata.ts'
import { OPERATIONS, type Operation, type Subject } from './operations.ts'
import { readTokenRequest } from './request.ts'
import type { SharedAnswer } from './spending.ts'

export interface HelperOutcome {
  readonly requestId: string
  /** Name of the caller, or `none` when it is not known. */
  readonly caller: string
  /** Name of the client, or `none` when the request named none that is configured. */
  readonly client: string
  /** The grant or whatever else was asked for; `other` when it is nothing that the helper knows. */
  readonly grant: Subject
  readonly code: GrantCode | 'ok'
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
  /** How, when the answer is one that was got for another request. */
  readonly shared: SharedAnswer | undefined
}

export interface HelperHandlerOptions extends ExchangeTools {
  readonly clients: readonly HelperClient[]
  /** Who may ask; nobody for everybody. */
  readonly callers: readonly KnownCaller[]
  /** How callers may authenticate, for the metadata (RFC 8414 §2). */
  readonly authMethods: readonly string[]
  readonly record: (outcome: HelperOutcome) => void
  readonly onUnexpected: (error: unknown, requestId: string) => void
  readonly newRequestId: () => string
  /** Whether requests must name this machine: a helper on loopback is asked for by no other name, unless by a browser. */
  readonly loopbackOnly: boolean
  /** The process stops accepting: nobody should wait for users any longer. */
  readonly ending: AbortSignal
}

/** What is known of a request so far, for its one log line. */
type Progress = { -readonly [P in 'caller' | 'client' | 'grant' | 'shared']: HelperOutcome[P] }

type Body = Readonly<Record<string, unknown>>

/** A request with the way back to its caller. */
interface Visit {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly expectsContinue: boolean
  readonly progress: Progress
}

const NO_STORE = { 'cache-control': 'no-store', pragma: 'no-cache' } as const
const METADATA = '/.well-known/oauth-authorization-server'

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
    const progress: Progress = { caller: 'none', client: 'none', grant: 'other', shared: undefined }
    const finish = (code: GrantCode | 'ok', status: number, detail?: Detail) =>
      options.record({ requestId, ...progress, code, status, durationMs: performance.now() - startedMs, detail })
    response.on('error', () => undefined)
    void perform({ request, response, expectsContinue, progress }, options).then(
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

async function perform(visit: Visit, options: HelperHandlerOptions): Promise<Body> {
  const { request, response, expectsContinue, progress } = visit
  refuseBrowsers(request, options.loopbackOnly)
  const [path = '', query] = (request.url ?? '').split('?', 2)
  if (path === METADATA || path.startsWith(`${METADATA}/`)) return describe(visit, path, options)
  const operation = findOperation(path, request.method)
  if (query !== undefined) throw invalidRequest('Parameters belong into the body, not into the URL.')
  if (expectsContinue) response.writeContinue()
  const read = await readTokenRequest(request)
  progress.grant = operation.subject(read)
  const shown = readShown(request, read)
  const caller = await authenticateCaller(shown, options.callers)
  progress.caller = caller.name
  const tokenRequest = withShownClient(read, shown, options.clients)
  const client = selectClient(tokenRequest, options.clients)
  progress.client = client.name
  requireClient(caller, client)
  options.spending.limiter.check(client.name, client.rateLimit)
  const gone = AbortSignal.any([signalOfClose(response), options.ending])
  const onShared = (by: SharedAnswer) => void (progress.shared = by)
  return operation.run({ caller, client, request: tokenRequest, gone, onShared }, options)
}

function signalOfClose(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  response.on('close', () => controller.abort())
  return controller.signal
}

function findOperation(path: string, method: string | undefined): Operation {
  const operation = Object.hasOwn(OPERATIONS, path) ? OPERATIONS[path] : undefined
  if (operation === undefined) {
    throw invalidRequest(
      `There is no such path here. There are ${Object.keys(OPERATIONS).join(', ')}, and ${METADATA}.`,
      404,
    )
  }
  if (method !== 'POST') throw invalidRequest('This endpoint takes POST only.', 405)
  return operation
}

/** What a host may look like to be written into addresses. */
const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/

function describe(
  { request, progress }: Visit,
  path: string,
  { clients, authMethods }: HelperHandlerOptions,
): Promise<Body> {
  progress.grant = 'metadata'
  if (request.method !== 'GET') throw invalidRequest('This document is read with GET only.', 405)
  const { host = 'localhost' } = request.headers
  if (!HOST.test(host)) throw invalidRequest('Host is not the name of a host.')
  const issuerName = path === METADATA ? undefined : path.slice(METADATA.length + 1)
  return describeHelper({ clients, base: `http://${host}`, issuerName, authMethods })
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
