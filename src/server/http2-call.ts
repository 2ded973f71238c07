import { constants, type OutgoingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { RequestHead } from '../http/http2-request.ts'
import type { CallerRequest, CallerResponse } from './caller.ts'

const CALL = Symbol('call')
type Stream = ServerHttp2Stream & { [CALL]?: Http2Call }

/** Ends a stream with an error code: without an error, its end would look like that of a complete response. */
const CUT = new Error('the response was cut off')

/** One stream of HTTP/2: the request and the way of its response in one. */
export class Http2Call implements CallerRequest, CallerResponse {
  readonly httpVersionMajor = 2
  readonly httpVersionMinor = 0
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly socket: Socket
  rawTrailers: readonly string[] = []
  statusCode = 0
  /** Means nothing here: the connection belongs to other streams as well. */
  shouldKeepAlive = true
  /** The trailer fields of the response, once they are known. */
  trailers: OutgoingHttpHeaders | undefined = undefined
  readonly #stream: Stream
  /** The fields of the response, until they are sent. */
  #head: string[] | undefined = undefined
  #headersSent = false
  #ended = false
  #onClose: (() => void) | undefined = undefined
  /** While the peer is waited for to take more of the response. */
  #sending: NodeJS.Timeout | undefined = undefined
  readonly #sendTimeoutMs: number

  constructor(stream: ServerHttp2Stream, head: RequestHead, socket: Socket, sendTimeoutMs: number) {
    this.method = head.method
    this.url = head.target
    this.rawHeaders = head.fields
    this.socket = socket
    this.#stream = stream
    this.#sendTimeoutMs = sendTimeoutMs
    this.#stream[CALL] = this
    // A caller that resets a stream is gone at once, even if nobody is reading what it sent before.
    stream.on('aborted', endStream)
    stream.on('end', endIfClosed)
    stream.on('close', stopTimer)
    if (!stream.endAfterHeaders) stream.on('trailers', takeTrailers)
  }

  get headersSent(): boolean {
    return this.#headersSent
  }

  get destroyed(): boolean {
    return this.#stream.destroyed
  }

  get writableFinished(): boolean {
    const { rstCode, aborted, closed, writableFinished } = this.#stream
    if (!this.#ended || aborted) return false
    // A stream that ended well may be gone before it counts as finished.
    return writableFinished || (closed && rstCode === constants.NGHTTP2_NO_ERROR)
  }

  on(event: 'data', listener: (chunk: Buffer) => void): this
  on(event: 'end' | 'error' | 'close', listener: () => void): this
  on(event: string, listener: (chunk: Buffer) => void): this {
    const stream = this.#stream
    if (event === 'close') {
      this.#onClose = listener as () => void
      stream.on('close', () => this.settle())
    }
    // A reset ends the body, too, but not as its last byte does.
    else if (event === 'end') stream.on('end', () => stream.closed || (listener as () => void)())
    else stream.on(event, listener)
    return this
  }

  /** Nothing more comes of it: the response has left, or never will. */
  settle(): void {
    const onClose = this.#onClose
    this.#onClose = undefined
    onClose?.()
  }

  once(event: 'drain', listener: () => void): this {
    this.#stream.once(event, listener)
    return this
  }

  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  writeContinue(): void {
    const stream = this.#stream
    if (!stream.closed) stream.additionalHeaders({ ':status': constants.HTTP_STATUS_CONTINUE })
  }

  writeEarlyHints({ link }: { link: string[] }): void {
    const stream = this.#stream
    if (!stream.closed) stream.additionalHeaders({ ':status': 103, link })
  }

  writeHead(status: number, fields: string[]): void {
    this.statusCode = status
    this.#headersSent = true
    fields.push(':status', String(status))
    this.#head = fields
  }

  write(chunk: Buffer | string, encoding: BufferEncoding = 'utf8'): boolean {
    this.#respond(false)
    const stream = this.#stream
    // The response to a HEAD, a 204 or a 304 ended with its header.
    if (chunk.length === 0 || stream.writableEnded || stream.destroyed) return true
    const more = stream.write(chunk, encoding)
    if (!more) this.#awaitPeer()
    return more
  }

  addTrailers(fields: [string, string][]): void {
    this.trailers = toHeaders(fields)
  }

  end(chunk: string | Buffer = '', encoding: BufferEncoding = 'utf8'): void {
    if (this.#ended) return
    this.#ended = true
    const stream = this.#stream
    this.#respond(chunk.length === 0 && this.trailers === undefined)
    if (stream.destroyed) return
    if (!stream.writableEnded) {
      if (chunk.length === 0) stream.end()
      else stream.end(chunk, encoding)
    }
    this.#awaitPeer()
    if (!isSending(stream)) return
    // Left alone, the library would reset the stream of a body that nobody has begun to read, and at once.
    if (stream.readableFlowing === null) stream.resume()
    if (this.trailers === undefined) stream.once('finish', endRequest)
  }

  destroy(): void {
    this.#stream.destroy(CUT)
  }

  /** The peer took what there was. */
  relax(): void {
    clearTimeout(this.#sending)
    this.#sending = undefined
  }

  /** Windows that stay shut would keep the request in flight, and its connection to the upstream. */
  #awaitPeer(): void {
    if (this.#sending !== undefined) return
    this.#sending = setTimeout(cut, this.#sendTimeoutMs, this)
    if (!this.#ended) this.#stream.once('drain', stopTimer)
  }

  #respond(isLast: boolean): void {
    const head = this.#head
    const stream = this.#stream
    if (head === undefined || stream.closed) return
    this.#head = undefined
    const waitForTrailers = !isLast && mayHaveTrailers(head)
    if (waitForTrailers) stream.on('wantTrailers', sendTrailers)
    stream.respond(head, { endStream: isLast, waitForTrailers })
  }
}

/** A body of known length needs no trailers, and is one frame cheaper without. */
function mayHaveTrailers(fields: readonly string[]): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    if ((fields[i] as string).toLowerCase() === 'content-length') return false
  }
  return true
}

function toHeaders(fields: readonly [string, string][]): OutgoingHttpHeaders {
  const headers = Object.create(null) as Record<string, string[]>
  for (const [name, value] of fields) (headers[name.toLowerCase()] ??= []).push(value)
  return headers
}

/** Whether the caller has not yet sent the whole of its request. */
function isSending(stream: ServerHttp2Stream): boolean {
  return !stream.endAfterHeaders && !stream.readableEnded
}

/** How long whoever has its response may go on sending, in milliseconds. */
const LINGER_MS = 250

/**
 * Whoever has its response need not send the rest of its request (RFC 9113 §8.1), and is told so. Not at once: callers that
 * find the end of a response and a reset in one read may take it for a failure and lose the response (curl 7.88).
 */
function endRequest(this: Stream): void {
  this[CALL]?.settle()
  setTimeout(() => {
    this.resume()
    if (this.closed) this.destroy()
    else this.close(constants.NGHTTP2_NO_ERROR)
  }, LINGER_MS).unref()
}

function cut(call: Http2Call): void {
  call.destroy()
}

function stopTimer(this: Stream): void {
  this[CALL]?.relax()
}

function endStream(this: ServerHttp2Stream): void {
  this.destroy()
}

/** A reset without an error leaves a stream waiting for what is still to be written, which nobody takes any more. */
function endIfClosed(this: ServerHttp2Stream): void {
  if (this.closed) this.destroy()
}

function takeTrailers(this: Stream, _headers: unknown, _flags: number, raw: string[]): void {
  if (this[CALL] !== undefined) this[CALL].rawTrailers = raw
}

function sendTrailers(this: Stream): void {
  this.sendTrailers(this[CALL]?.trailers ?? {})
  if (isSending(this)) endRequest.call(this)
}
