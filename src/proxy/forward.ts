import { UpstreamError, type CodedError } from '../errors.ts'
import type { Permit } from '../gate/permit.ts'
import { readGrpcType, toGrpcStatus } from '../http/grpc.ts'
import {
  keepRequestTrailers,
  keepResponseFields,
  keepResponseTrailers,
  type FieldList,
  type RequestFieldFilter,
} from '../http/headers.ts'
import type { CallerRequest, CallerResponse } from '../server/caller.ts'
import type { Carriage, UpstreamRequest } from './connection.ts'
import type { Exchange } from './exchange.ts'
import { acceptsTrailers, hasBody, isChunked, isHttp10, toHttp1Head, toHttp2Head } from './request-head.ts'
import type { Head } from './response-reader.ts'
import type { Tunnels } from './tunnel.ts'
import type { Upstream } from './upstream.ts'

/**
 * Carries a permitted request to the upstream and its response back, streaming both bodies.
 *
 * @param onFailure - called once if it fails, with an UpstreamError. When the response had begun by then, the caller's
 * connection was cut, so that the body cannot be mistaken for complete.
 */
export type Forward = (permit: Permit, exchange: Exchange, onFailure: FailureHandler) => void

type FailureHandler = (exchange: Exchange, error: CodedError) => void

export interface ForwardOptions {
  readonly upstream: Upstream
  readonly tunnels: Tunnels
  readonly filter: RequestFieldFilter
  /**
   * Longest time from the permit to the end of the response, whatever moves meanwhile, in milliseconds; 0 for no limit. Then
   * `upstream_timeout`. WebSockets have none.
   */
  readonly totalTimeoutMs: number
}

/** Creates the one function that talks to the upstream. */
export function createForward({ upstream, tunnels, filter, totalTimeoutMs }: ForwardOptions): Forward {
  return (permit, exchange, onFailure) => {
    if (exchange.request.tunnel !== undefined) {
      return tunnels(toHttp1Head(permit, exchange, filter), exchange, onFailure)
    }
    const carrier = new Carrier(permit, exchange, filter, onFailure)
    exchange.carrier = carrier
    if (exchange.expectsContinue && carrier.body !== undefined) exchange.response.writeContinue()
    carrier.body?.onFault?.((fault) => carrier.giveUp(fault))
    if (totalTimeoutMs > 0) limitTime(carrier, exchange.response, totalTimeoutMs)
    upstream.dispatch(carrier)
  }
}

function limitTime(carrier: Carrier, response: CallerResponse, limitMs: number): void {
  const late = () => carrier.giveUp(new UpstreamError('upstream_timeout', { limit: 'total_timeout' }))
  const timer = setTimeout(late, limitMs)
  response.on('close', () => clearTimeout(timer))
}

/** A body that is complete and not longer than this leaves in one piece with the header. */
const SMALL_BODY_BYTES = 16 * 1024

/** Shared by all that hold nothing, which are most. */
const NOTHING: Buffer[] = []

/** One request to the upstream, and the way of its response back to the caller. */
class Carrier implements UpstreamRequest {
  readonly method: string
  readonly body: CallerRequest | undefined
  readonly chunked: boolean
  connection: Carriage | undefined = undefined
  cancelled = false
  blocked = false
  readonly #permit: Permit
  readonly #exchange: Exchange
  readonly #filter: RequestFieldFilter
  readonly #response: CallerResponse
  readonly #onFailure: FailureHandler
  /** What came of the response, until it is known that all that came with it is good: a caller is told 502 rather than cut. */
  #head: Head | undefined = undefined
  #held: Buffer[] = NOTHING
  #givenUp = false

  constructor(permit: Permit, exchange: Exchange, filter: RequestFieldFilter, onFailure: FailureHandler) {
    const { request } = exchange
    this.method = request.method as string
    this.chunked = isChunked(request)
    this.body = hasBody(request) ? request : undefined
    this.#permit = permit
    this.#exchange = exchange
    this.#filter = filter
    this.#response = exchange.response
    this.#onFailure = onFailure
  }

  get head(): string {
    return toHttp1Head(this.#permit, this.#exchange, this.#filter)
  }

  http2Head(scheme: 'http' | 'https'): string[] {
    return toHttp2Head(this.#permit, this.#exchange, this.#filter, scheme)
  }

  get trailers(): string[] {
    const { rawTrailers } = this.#exchange.request
    return rawTrailers.length === 0 ? [] : keepRequestTrailers(rawTrailers, this.#filter)
  }

  /** The caller is gone: the upstream need not go on. */
  cancel(): void {
    this.cancelled = true
    this.connection?.cancel()
  }

  /** Something else than the upstream ends it. */
  giveUp(error: CodedError): void {
    this.onFailure(error)
    this.#givenUp = true
    this.cancel()
  }

  onEarlyHints(fields: readonly string[]): void {
    const link = fields.filter((_value, i) => i % 2 === 1 && fields[i - 1]?.toLowerCase() === 'link')
    // To a caller of HTTP/1.0 it would be the response itself (RFC 9110 §15.2).
    if (link.length === 0 || isHttp10(this.#exchange.request)) return
    try {
      this.#response.writeEarlyHints({ link })
    } catch {
      // A hint that is no link is no loss.
    }
  }

  onHead(head: Head, followed: boolean): void {
    this.#head = head
    if (followed) return
    this.#writeHead(head)
    // A head that came alone must not wait. Not by flushHeaders(), which writes every character above ASCII as two bytes.
    this.#response.write('', 'latin1')
  }

  onData(chunk: Buffer, last: boolean): void {
    const response = this.#response
    if (last) {
      this.flush()
      // As text it is joined with the header into one write; a view of the read buffer could not be kept anyway.
      if (chunk.length <= SMALL_BODY_BYTES) response.end(chunk.toString('latin1'), 'latin1')
      else response.end(Buffer.from(chunk))
    } else if (this.#head !== undefined) this.#hold(Buffer.from(chunk))
    else this.#write(Buffer.from(chunk))
  }

  onEnd(trailers?: FieldList): void {
    this.flush()
    if (trailers !== undefined && this.#takesTrailers()) this.#response.addTrailers(keepResponseTrailers(trailers))
    this.#response.end()
  }

  flush(): void {
    const head = this.#head
    if (head === undefined) return
    this.#writeHead(head)
    for (const chunk of this.#held) this.#write(chunk)
    this.#held = NOTHING
  }

  onFailure(error: CodedError): void {
    if (this.#givenUp) return
    if (this.#response.headersSent) this.#cut(error)
    this.#onFailure(this.#exchange, error)
  }

  #writeHead({ status, fields }: Head): void {
    this.#head = undefined
    this.#response.writeHead(status, keepResponseFields(fields, status))
  }

  #hold(chunk: Buffer): void {
    if (this.#held === NOTHING) this.#held = [chunk]
    else this.#held.push(chunk)
  }

  #write(chunk: Buffer): void {
    const response = this.#response
    if (response.write(chunk) || this.blocked) return
    this.blocked = true
    response.once('drain', () => {
      this.blocked = false
      this.connection?.resume()
    })
  }

  /** HTTP/2 always has room for trailers; whoever speaks HTTP/1.1 must have asked for them (RFC 9110 §6.5.1). */
  #takesTrailers(): boolean {
    const { request } = this.#exchange
    return request.httpVersionMajor === 2 || acceptsTrailers(request.rawHeaders)
  }

  /** The head has left, so only the end can tell that the rest is missing: a call of gRPC has a status there. */
  #cut({ code }: CodedError): void {
    const { request, requestId } = this.#exchange
    const response = this.#response
    if (request.httpVersionMajor !== 2 || code === 'caller_gone' || readGrpcType(request.rawHeaders) === undefined) {
      return void response.destroy()
    }
    response.addTrailers(toGrpcStatus(code, requestId))
    response.end()
  }
}
