import type { IncomingMessage, ServerResponse } from 'node:http'
import { CodedError, refusal, type Code, type Detail } from '../errors.ts'
import { scopesOf } from '../gate/authorize.ts'
import type { Findings, Gate } from '../gate/gate.ts'
import { plainAddress, type Peer } from '../http/forwarded.ts'
import { findField } from '../http/headers.ts'
import { toProblemResponse } from '../http/problem.ts'
import type { RequestHandler } from '../server/listener.ts'
import type { OutcomeRecorder } from '../telemetry/outcome.ts'
import type { Forward } from './forward.ts'

export interface ProxyHandlerOptions {
  readonly gate: Gate
  readonly forward: Forward
  readonly record: OutcomeRecorder
  /** An error that is nobody's fault but ours. */
  readonly onUnexpected: (error: unknown, requestId: string) => void
  readonly isTrustedPeer: (address: string) => boolean
  readonly newRequestId: () => string
  /** Called with +1 and -1 as requests come and go. */
  readonly onInFlight: (change: 1 | -1) => void
}

/** What is known of the request so far, for its one log line. */
interface Progress {
  readonly startedMs: number
  readonly requestId: string
  readonly findings: Findings
  code: Code | 'ok'
  decidedMs: number | undefined
  permitted: boolean
  detail: Detail | undefined
}

/** Creates the door through which traffic comes: gate, then forward, one place for errors, one outcome per request. */
export function createProxyHandler(options: ProxyHandlerOptions): RequestHandler {
  const { gate, forward } = options
  const toPeer = createPeers(options.isTrustedPeer)

  return (request, response, expectsContinue) => {
    const peer = toPeer(request)
    const progress: Progress = {
      startedMs: performance.now(),
      requestId: readRequestId(request, options.newRequestId),
      findings: {},
      code: 'ok',
      decidedMs: undefined,
      permitted: false,
      detail: undefined,
    }
    options.onInFlight(1)
    response.on('error', () => undefined)
    response.once('close', () => finish(request, response, peer, progress))
    void serve()

    async function serve(): Promise<void> {
      try {
        checkSupported(request, expectsContinue)
        const { method, url, rawHeaders: fields } = request
        const permit = await gate({ method: method as string, target: url as string, fields }, progress.findings)
        progress.decidedMs = performance.now()
        progress.permitted = true
        await forward(permit, { request, response, requestId: progress.requestId, peer, expectsContinue })
      } catch (error) {
        fail(response, progress, error)
      }
    }
  }

  /** The single catch: an error becomes a code, and the code a response if there is still somebody to send it to. */
  function fail(response: ServerResponse, progress: Progress, error: unknown): void {
    progress.decidedMs ??= performance.now()
    if (error instanceof CodedError) {
      progress.code = error.code
      progress.detail = error.detail
    } else {
      progress.code = 'internal_error'
      options.onUnexpected(error, progress.requestId)
    }
    if (response.headersSent || response.destroyed) return
    const { rule } = progress.findings
    const answer = toProblemResponse(progress.code, progress.requestId, rule && scopesOf(rule))
    response.writeHead(answer.status, answer.headers)
    response.end(answer.body)
  }

  function finish(request: IncomingMessage, response: ServerResponse, peer: Peer, progress: Progress): void {
    options.onInFlight(-1)
    const endedMs = performance.now()
    const complete = response.writableFinished
    const { rule, token } = progress.findings
    const url = request.url as string
    const query = url.indexOf('?')
    options.record({
      requestId: progress.requestId,
      method: request.method as string,
      path: query === -1 ? url : url.slice(0, query),
      peer: peer.address,
      rule: rule?.name ?? 'none',
      code: progress.code === 'ok' && !complete ? 'caller_gone' : progress.code,
      permitted: progress.permitted,
      status: complete || (response.headersSent && progress.code !== 'ok') ? response.statusCode : 499,
      issuer: token?.issuerName,
      clientId: token?.clientId,
      durationMs: endedMs - progress.startedMs,
      decisionMs: (progress.decidedMs ?? endedMs) - progress.startedMs,
      detail: progress.detail,
    })
  }
}

/** Refuses what this version cannot carry, before anybody else has to think about it. */
function checkSupported({ method, rawHeaders }: IncomingMessage, expectsContinue: boolean): void {
  // A TRACE would show the caller what we add to its request.
  if (method === 'TRACE') throw refusal('method_not_supported', { method })
  if (findField(rawHeaders, 'upgrade').count > 0) throw refusal('upgrade_not_supported')
  if (!expectsContinue && findField(rawHeaders, 'expect').count > 0) throw refusal('expectation_failed')
}

const LEGAL_REQUEST_ID = /^[\w.:-]{1,128}$/

/** The caller's `X-Request-Id` when it is harmless, so that one id runs through all logs; otherwise a new one. */
function readRequestId({ rawHeaders }: IncomingMessage, newRequestId: () => string): string {
  const { count, value } = findField(rawHeaders, 'x-request-id')
  return count === 1 && value !== undefined && LEGAL_REQUEST_ID.test(value) ? value : newRequestId()
}

/** The TCP neighbour, looked up once per connection. */
function createPeers(isTrusted: (address: string) => boolean): (request: IncomingMessage) => Peer {
  const peers = new WeakMap<object, Peer>()
  return ({ socket }) => {
    let peer = peers.get(socket)
    if (peer === undefined) {
      const address = plainAddress(socket.remoteAddress ?? '')
      peer = { address, trusted: address !== '' && isTrusted(address), scheme: 'http' }
      peers.set(socket, peer)
    }
    return peer
  }
}
