import { CODES, CodedError, refusal, unavailable } from '../errors.ts'
import { scopesOf } from '../gate/authorize.ts'
import type { Gate } from '../gate/gate.ts'
import type { Permit } from '../gate/permit.ts'
import type { CorsFields } from '../http/cors.ts'
import { plainAddress, type Peer } from '../http/forwarded.ts'
import { readGrpcType, toGrpcResponse } from '../http/grpc.ts'
import { findField } from '../http/headers.ts'
import { toProblemResponse } from '../http/problem.ts'
import type { CallerHandler, CallerRequest } from '../server/caller.ts'
import type { OutcomeRecorder } from '../telemetry/outcome.ts'
import { Exchange } from './exchange.ts'
import type { Forward } from './forward.ts'
import { hasBody } from './request-head.ts'

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
  /** Lets pages of some origins read refusals. */
  readonly corsFields: CorsFields
  /** Most requests at a time. */
  readonly maxInFlight: number
  /** Most header fields of a request. */
  readonly maxFields: number
}

/** Creates the door through which traffic comes: gate, then forward, one place for errors, one outcome per request. */
export function createProxyHandler(options: ProxyHandlerOptions): CallerHandler {
  const { gate, forward } = options
  let inFlight = 0
  const toPeer = createPeers(options.isTrustedPeer)

  return (request, response, expectsContinue, fault) => {
    const requestId = readRequestId(request, options.newRequestId)
    const exchange = new Exchange({ request, response, requestId, peer: toPeer(request), expectsContinue })
    inFlight += 1
    options.onInFlight(1)
    response.on('error', ignore)
    response.on('close', () => finish(exchange))
    decide(exchange, fault)
  }

  function decide(exchange: Exchange, fault: CodedError | undefined): void {
    const { request } = exchange
    try {
      if (fault !== undefined) throw fault
      if (inFlight > options.maxInFlight) throw unavailable('overloaded', { requests_in_flight: inFlight })
      checkSupported(request, exchange.expectsContinue)
      if (request.rawHeaders.length > options.maxFields * 2) throw refusal('header_too_large', { reason: 'fields' })
      const { method, url, rawHeaders: fields } = request
      const permit = gate({ method: method as string, target: url as string, fields }, exchange)
      if (permit instanceof Promise) {
        permit.then((late) => carry(exchange, late)).catch((error: unknown) => fail(exchange, error))
      } else carry(exchange, permit)
    } catch (error) {
      fail(exchange, error)
    }
  }

  function carry(exchange: Exchange, permit: Permit): void {
    exchange.decidedMs = performance.now()
    exchange.permitted = true
    // Whoever left while a signature was checked needs no answer.
    if (exchange.response.destroyed) return
    forward(permit, exchange, fail)
  }

  /** The single catch: an error becomes a code, and the code a response if there is still somebody to send it to. */
  function fail(exchange: Exchange, error: unknown): void {
    const { request, response, rule } = exchange
    exchange.decidedMs ??= performance.now()
    if (error instanceof CodedError) {
      exchange.code = error.code
      exchange.detail = error.detail
    } else {
      exchange.code = 'internal_error'
      options.onUnexpected(error, exchange.requestId)
    }
    if (response.headersSent || response.destroyed) return
    exchange.refusedAs = CODES[exchange.code].status
    // What is left is an answer to be read; callers that do not read theirs must not take the places of others.
    release(exchange)
    const grpcType = readGrpcType(request.rawHeaders)
    const answer =
      grpcType === undefined
        ? toProblemResponse(exchange.code, exchange.requestId, rule && scopesOf(rule))
        : toGrpcResponse(exchange.code, exchange.requestId, grpcType)
    if (endsConnection(exchange.code)) response.shouldKeepAlive = false
    response.writeHead(answer.status, [...answer.headers, ...options.corsFields(request.rawHeaders)])
    response.end(answer.body)
  }

  function release(exchange: Exchange): void {
    if (exchange.released) return
    exchange.released = true
    inFlight -= 1
    options.onInFlight(-1)
  }

  function finish(exchange: Exchange): void {
    const { request, response, rule, token, startedMs, decidedMs } = exchange
    release(exchange)
    const endedMs = performance.now()
    const complete = response.writableFinished || exchange.tunnelled
    if (!complete) {
      exchange.carrier?.cancel()
      if (exchange.code === 'ok') exchange.code = 'caller_gone'
    }
    options.record({
      requestId: exchange.requestId,
      method: request.method as string,
      path: pathOf(request.url as string),
      peer: exchange.peer.address,
      rule: rule?.name ?? 'none',
      code: exchange.code,
      permitted: exchange.permitted,
      status: statusSent(exchange),
      issuer: token?.issuerName,
      clientId: token?.clientId,
      durationMs: endedMs - startedMs,
      decisionMs: (decidedMs ?? endedMs) - startedMs,
      detail: exchange.detail,
    })
  }
}

/** The status the caller got, or 499 when it left without one or before the upstream was through. */
function statusSent({ response, code, refusedAs, tunnelled }: Exchange): number {
  if (tunnelled) return 101
  const sent = response.writableFinished || (response.headersSent && code !== 'caller_gone')
  if (!sent) return 499
  return refusedAs === 0 ? response.statusCode : refusedAs
}

/** The path of a target without its query, which may hold secrets. */
function pathOf(target: string): string {
  const query = target.indexOf('?')
  return query === -1 ? target : target.slice(0, query)
}

/**
 * What is left of a request that came too slowly would come as slowly, and behind a malformed header nobody can be sure
 * where the next request begins (RFC 9112 §6.3).
 */
function endsConnection(code: Exchange['code']): boolean {
  return code === 'request_timeout' || code === 'header_invalid'
}

/** A connection that breaks is seen by its response's end. */
function ignore(): void {}

/** Refuses what this version cannot carry, before anybody else has to think about it. */
function checkSupported(request: CallerRequest, expectsContinue: boolean): void {
  const { method, rawHeaders, tunnel } = request
  // A TRACE would show the caller what we add to its request.
  if (method === 'TRACE') throw refusal('method_not_supported', { method })
  const upgrade = findField(rawHeaders, 'upgrade')
  if (upgrade.count > 0 && !(tunnel !== undefined && isWebSocket(method, upgrade)))
    throw refusal('upgrade_not_supported')
  // The parser leaves it unread, and the backend would take the first frames for it.
  if (tunnel !== undefined && hasBody(request)) throw refusal('header_invalid', { reason: 'body of an upgrade' })
  if (!expectsContinue && findField(rawHeaders, 'expect').count > 0) throw refusal('expectation_failed')
}

/** The one protocol that a connection may be switched to (RFC 6455 §4.2.1). */
function isWebSocket(method: string | undefined, { count, value }: ReturnType<typeof findField>): boolean {
  return method === 'GET' && count === 1 && value?.toLowerCase() === 'websocket'
}

const LEGAL_REQUEST_ID = /^[\w.:-]{1,128}$/

/** The caller's `X-Request-Id` when it is harmless, so that one id runs through all logs; otherwise a new one. */
function readRequestId({ rawHeaders }: CallerRequest, newRequestId: () => string): string {
  const { count, value } = findField(rawHeaders, 'x-request-id')
  return count === 1 && value !== undefined && LEGAL_REQUEST_ID.test(value) ? value : newRequestId()
}

const PEER = Symbol('peer')

/** The TCP neighbour, looked up once per connection. */
function createPeers(isTrusted: (address: string) => boolean): (request: CallerRequest) => Peer {
  return (request) => {
    const socket: CallerRequest['socket'] & { [PEER]?: Peer } = request.socket
    if (socket[PEER] === undefined) {
      const address = plainAddress(socket.remoteAddress ?? '')
      socket[PEER] = {
        address,
        trusted: address !== '' && isTrusted(address),
        scheme: 'encrypted' in socket ? 'https' : 'http',
      }
    }
    return socket[PEER]
  }
}
