import { constants, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2'
import { refusal, UpstreamError, type Refusal, type UpstreamCode } from '../errors.ts'
import { readGrpcType } from '../http/grpc.ts'
import { allowsSilence } from '../http/response-head.ts'
import type { CallerRequest } from '../server/caller.ts'
import { IDEMPOTENT, toFailureCode, type Carriage, type UpstreamRequest } from './connection.ts'

export interface CarriageOptions {
  /** From the last byte of the request to the head of the response, in milliseconds. */
  readonly responseTimeoutMs: number
  /** Longest silence within the body of a response, in milliseconds; 0 for none. */
  readonly idleTimeoutMs: number
  /** Longest silence of a caller within the body of its request, in milliseconds. A call of gRPC may be idle for longer. */
  readonly bodyTimeoutMs: number
  readonly dial: { readonly scheme: 'http' | 'https' }
}

/** The connection that carries a request, and what it is told. */
export interface CarriageOwner {
  readonly options: CarriageOptions
  /** Why every request on it fails, once that is known. */
  readonly failure: { readonly code: UpstreamCode; readonly cause: string } | undefined
  /** Whether it has carried requests before. */
  readonly used: boolean
  onActivity(): void
  /** The request was not served, and may be sent once more. */
  onRetry(request: UpstreamRequest): void
  onClosed(carriage: Http2Carriage): void
}

const CARRIAGE = Symbol('carriage')
type Stream = ClientHttp2Stream & { [CARRIAGE]?: Http2Carriage }

const { NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR, NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL } = constants
const { NGHTTP2_FLAG_END_STREAM } = constants

/** One request on its way to the upstream as a stream of HTTP/2, and its response on its way back. */
export class Http2Carriage implements Carriage {
  readonly #owner: CarriageOwner
  readonly #stream: Stream
  /** Whether a failure may be answered by sending the request once more. */
  readonly #first: boolean
  /** `undefined` as soon as its fate is known. */
  #request: UpstreamRequest | undefined
  #begun = false
  #uploading = false
  /** While a body is sent: whether its next part is the caller's to send, and for how long that may take. */
  #awaitsCaller = false
  readonly #silenceMs: number
  /** Whether some of the body has left, so that the request cannot be sent again. */
  #bodyTaken = false
  #mayBeSilent = false
  /** Bytes left of a body of known length; -1 for any other. */
  #left = -1
  #trailers: readonly string[] | undefined = undefined
  #error: NodeJS.ErrnoException | undefined = undefined
  /** When it has waited too long, by `performance.now()`. */
  #deadlineMs = Infinity

  /** @param first - false for a request that is sent once more */
  constructor(session: ClientHttp2Session, request: UpstreamRequest, owner: CarriageOwner, first: boolean) {
    const { body } = request
    const head = request.http2Head(owner.options.dial.scheme)
    // Trailers cost a frame of their own, so they are waited for where there may be some: gRPC has none in requests.
    const isGrpc = readGrpcType(head) !== undefined
    const waitForTrailers = body !== undefined && request.chunked && !isGrpc
    const { idleTimeoutMs, bodyTimeoutMs, responseTimeoutMs } = owner.options
    this.#owner = owner
    this.#first = first
    this.#silenceMs = isGrpc ? idleTimeoutMs || Infinity : bodyTimeoutMs
    this.#request = request
    request.connection = this
    const stream: Stream = session.request(head, {
      endStream: body === undefined,
      waitForTrailers,
    })
    this.#stream = stream
    stream[CARRIAGE] = this
    stream.on('response', onResponse).on('data', onData).on('trailers', onTrailers).on('end', onEnd)
    stream.on('error', onError).on('close', onClose)
    this.#deadlineMs = performance.now() + responseTimeoutMs
    if (body !== undefined) this.#upload(body)
    if (waitForTrailers) stream.on('wantTrailers', () => stream.sendTrailers(toHeaders(request.trailers)))
  }

  cancel(): void {
    this.#fail('caller_gone', 'cancelled')
  }

  resume(): void {
    this.#touch()
    this.#stream.resume()
  }

  /** Ends the request if it has waited too long. */
  checkDeadline(nowMs: number): void {
    if (nowMs < this.#deadlineMs || this.#request?.blocked === true) return
    if (this.#awaitsCaller) return this.#abandon(refusal('request_timeout', { reason: 'body' }))
    this.#fail('upstream_timeout', this.#begun ? 'idle' : 'response')
  }

  onResponse(status: number, ended: boolean, raw: readonly string[]): void {
    this.#owner.onActivity()
    const request = this.#request
    if (request === undefined) return
    if (!(status >= 200 && status <= 599)) return this.#fail('upstream_invalid_response', 'status')
    this.#begun = true
    const fields: string[] = []
    for (let i = 0; i < raw.length; i += 2) {
      const name = raw[i] as string
      if (name.startsWith(':')) continue
      fields.push(name, raw[i + 1] as string)
      if (name === 'content-length') this.#left = Number(raw[i + 1])
      else if (name === 'content-type') this.#mayBeSilent = allowsSilence(raw[i + 1] as string)
    }
    this.#touch()
    if (request.method === 'HEAD' || status === 204 || status === 304) this.#left = -1
    request.onHead({ status, fields }, ended)
  }

  onData(chunk: Buffer): void {
    this.#owner.onActivity()
    const request = this.#request
    if (request === undefined) return
    this.#touch()
    if (this.#left >= 0) this.#left -= chunk.length
    request.onData(chunk, false)
    if (request.blocked) this.#stream.pause()
  }

  onTrailers(raw: readonly string[]): void {
    this.#trailers = raw
  }

  onEnd(): void {
    // A stream that was reset ends, too; and a body may be shorter than its head said.
    if (!this.#begun || this.#left > 0 || this.#stream.rstCode !== NGHTTP2_NO_ERROR) return this.#break()
    const request = this.#detach()
    request?.onEnd(this.#trailers)
    if (this.#uploading) cancelLater(this.#stream)
  }

  onError(error: NodeJS.ErrnoException): void {
    this.#error = error
  }

  onClose(): void {
    this.#break()
    this.#owner.onClosed(this)
  }

  /** If the response is not complete by now, it never will be. */
  #break(): void {
    const { code, cause } = this.#owner.failure ?? toFailure(this.#stream.rstCode, this.#error)
    this.#fail(code, cause)
  }

  #fail(code: UpstreamCode, cause: string): void {
    const { rstCode } = this.#stream
    const begun = this.#begun
    const request = this.#detach()
    if (request === undefined) return
    cancelLater(this.#stream)
    if (!begun && this.#first && this.#isUnharmed(request, code, rstCode)) this.#owner.onRetry(request)
    else request.onFailure(new UpstreamError(code, { cause }))
  }

  /** The caller is at fault. */
  #abandon(fault: Refusal): void {
    const request = this.#detach()
    cancelLater(this.#stream)
    request?.onFailure(fault)
  }

  /**
   * A refused stream was not looked at, whatever it asked for (RFC 9113 §8.7). An idempotent request may be sent again when
   * the connection was closed just as it left, as on HTTP/1.1.
   */
  #isUnharmed({ method, body }: UpstreamRequest, code: UpstreamCode, rstCode: number): boolean {
    if (rstCode === NGHTTP2_REFUSED_STREAM) return !this.#bodyTaken
    return code === 'upstream_reset' && body === undefined && this.#owner.used && IDEMPOTENT.has(method)
  }

  #upload(body: CallerRequest): void {
    const stream = this.#stream
    const { responseTimeoutMs } = this.#owner.options
    this.#uploading = true
    this.#awaitCaller()
    body.on('error', ignore)
    body.on('data', (chunk) => {
      if (this.#request?.body !== body) return
      this.#bodyTaken = true
      if (stream.write(chunk)) return this.#awaitCaller()
      // From here on it is the upstream that is slow.
      this.#awaitsCaller = false
      if (!this.#begun) this.#deadlineMs = performance.now() + responseTimeoutMs
      body.pause()
    })
    stream.on('drain', () => {
      if (!this.#uploading || this.#request === undefined) return
      this.#awaitCaller()
      body.resume()
    })
    body.on('end', () => {
      if (this.#request?.body !== body) return
      this.#uploading = false
      this.#awaitsCaller = false
      stream.end()
      if (!this.#begun) this.#deadlineMs = performance.now() + responseTimeoutMs
    })
  }

  #awaitCaller(): void {
    // Once the response comes, its own silence counts.
    if (this.#begun) return
    this.#awaitsCaller = true
    this.#deadlineMs = performance.now() + this.#silenceMs
  }

  #touch(): void {
    const { idleTimeoutMs } = this.#owner.options
    if (!this.#begun) return
    this.#awaitsCaller = false
    const isFree = idleTimeoutMs === 0 || this.#mayBeSilent
    this.#deadlineMs = isFree ? Infinity : performance.now() + idleTimeoutMs
  }

  #detach(): UpstreamRequest | undefined {
    const request = this.#request
    this.#request = undefined
    this.#deadlineMs = Infinity
    if (request !== undefined) request.connection = undefined
    // Nobody wants what is left of the body; unread, it would keep the caller's connection from its next request.
    if (this.#uploading) request?.body?.resume()
    return request
  }
}

function ignore(): void {}

/**
 * Resets a stream, but not from within an event of its connection: Node 26 aborts the process when a stream that waits for
 * trailers is cancelled there.
 */
function cancelLater(stream: Stream): void {
  setImmediate(() => {
    // One that the upstream ended by a reset without an error would wait forever for what is still to be written.
    if (stream.closed) stream.destroy()
    else stream.close(NGHTTP2_CANCEL)
  })
}

function toFailure(rstCode: number, error: NodeJS.ErrnoException | undefined): { code: UpstreamCode; cause: string } {
  if (error?.code === 'ERR_HTTP2_ERROR') return { code: 'upstream_invalid_response', cause: error.message }
  if (error?.code !== undefined && !error.code.startsWith('ERR_'))
    return { code: toFailureCode(error), cause: error.code }
  const code = rstCode === NGHTTP2_PROTOCOL_ERROR ? 'upstream_invalid_response' : 'upstream_reset'
  return { code, cause: `stream error ${rstCode}` }
}

function toHeaders(fields: readonly string[]): Record<string, string[]> {
  const headers = Object.create(null) as Record<string, string[]>
  for (let i = 0; i < fields.length; i += 2) {
    ;(headers[(fields[i] as string).toLowerCase()] ??= []).push(fields[i + 1] as string)
  }
  return headers
}

function onResponse(this: Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]): void {
  this[CARRIAGE]?.onResponse(Number(headers[':status']), (flags & NGHTTP2_FLAG_END_STREAM) !== 0, raw)
}

function onData(this: Stream, chunk: Buffer): void {
  this[CARRIAGE]?.onData(chunk)
}

function onTrailers(this: Stream, _headers: unknown, _flags: number, raw: string[]): void {
  this[CARRIAGE]?.onTrailers(raw)
}

function onEnd(this: Stream): void {
  this[CARRIAGE]?.onEnd()
}

function onError(this: Stream, error: NodeJS.ErrnoException): void {
  this[CARRIAGE]?.onError(error)
}

function onClose(this: Stream): void {
  this[CARRIAGE]?.onClose()
}
