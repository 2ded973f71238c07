import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { CodedError } from '../errors.ts'
import type { BodySink } from '../http/body-reader.ts'
import { MessageFault } from '../http/field-line.ts'
import { findField } from '../http/headers.ts'
import type { Http1Request } from '../http/http1-request.ts'
import { httpDate } from '../util/http-date.ts'
import type { CallerRequest, CallerResponse, Tunnel } from './caller.ts'

/** The connection that a call came on. */
export interface Http1Host {
  readonly socket: Socket
  /** What the head of a response says when the connection stays open, ended by a line break. */
  readonly keepAliveFields: string
  /** Somebody wants the body now. */
  readBody(): void
  /** To be called when the whole response was handed to the system. */
  readonly onSent: (error?: Error | null) => void
}

/** Parts up to this size are copied into one text with what goes before them, so that one write does for all. */
const SMALL_BYTES = 16 * 1024
const NONE: readonly string[] = []

type Framing = 'undecided' | 'length' | 'chunked' | 'close' | 'none'

/** One request of HTTP/1.1 and the way of its response, in one. */
export class Http1Call implements CallerRequest, CallerResponse, BodySink {
  readonly httpVersionMajor = 1
  readonly httpVersionMinor: 0 | 1
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  rawTrailers: readonly string[] = NONE
  tunnel?: Tunnel
  statusCode = 0
  shouldKeepAlive: boolean
  headersSent = false
  writableFinished = false
  /** Whether the body is to be read: somebody listens, or nobody ever will. */
  wanted = false
  paused = false
  readonly #host: Http1Host
  readonly #expectsContinue: boolean
  #continued = false
  /** The head of the response, until it is written. */
  #head = ''
  #framing: Framing = 'undecided'
  #ended = false
  #trailers: readonly [string, string][] = []
  #onData: ((chunk: Buffer) => void) | undefined = undefined
  #onEnd: (() => void) | undefined = undefined
  #onFault: ((fault: CodedError) => void) | undefined = undefined
  #onClose: (() => void) | undefined = undefined
  #closed = false

  constructor(request: Http1Request, host: Http1Host) {
    this.httpVersionMinor = request.minorVersion
    this.method = request.method
    this.url = request.target
    this.rawHeaders = request.fields
    this.shouldKeepAlive = request.persistent && request.fault === undefined
    this.#expectsContinue = request.expectsContinue
    this.#host = host
  }

  get socket(): Socket {
    return this.#host.socket
  }

  get destroyed(): boolean {
    return this.#host.socket.destroyed
  }

  on(event: 'data', listener: (chunk: Buffer) => void): this
  on(event: 'end' | 'error' | 'close', listener: () => void): this
  on(event: string, listener: (...parts: never[]) => void): this {
    if (event === 'close') this.#listenToClose(listener)
    else if (event === 'end') this.#onEnd = listener
    else if (event === 'data') {
      this.#onData = listener as (chunk: Buffer) => void
      this.#want()
    }
    return this
  }

  onFault(listener: (fault: CodedError) => void): void {
    this.#onFault = listener
  }

  #listenToClose(listener: () => void): void {
    const first = this.#onClose
    this.#onClose =
      first === undefined
        ? listener
        : () => {
            first()
            listener()
          }
  }

  once(_event: 'drain', listener: () => void): this {
    this.#host.socket.once('drain', listener)
    return this
  }

  pause(): void {
    this.paused = true
    this.#host.socket.pause()
  }

  /** Without somebody to read it, the body is passed over. */
  resume(): void {
    this.paused = false
    this.#want()
  }

  #want(): void {
    this.wanted = true
    process.nextTick(readBody, this.#host)
  }

  // What the connection tells

  onData(chunk: Buffer, last: boolean): void {
    this.#onData?.(chunk)
    if (last) this.#onEnd?.()
  }

  /** @throws MessageFault for trailers that say where the body ends: that was said before (RFC 9110 §6.5.1) */
  onEnd(trailers: readonly string[] = NONE): void {
    if (trailers.some(isFraming)) throw new MessageFault('framing in trailers')
    this.rawTrailers = trailers
    this.#onEnd?.()
  }

  /** The body cannot be read. @returns whether somebody takes care of that */
  takeFault(fault: CodedError): boolean {
    this.#onFault?.(fault)
    return this.#onFault !== undefined
  }

  /** The response has left, or never will. */
  settle(sent: boolean): void {
    if (this.#closed) return
    this.#closed = true
    this.writableFinished = sent
    this.#onClose?.()
  }

  // The response

  writeContinue(): void {
    this.#continued = true
    this.#host.socket.write('HTTP/1.1 100 Continue\r\n\r\n', 'latin1')
  }

  writeEarlyHints({ link }: { link: string[] }): void {
    let head = 'HTTP/1.1 103 Early Hints\r\n'
    for (const value of link) {
      if (!value.startsWith('<')) throw new TypeError('not a link')
      head += `Link: ${value}\r\n`
    }
    this.#host.socket.write(`${head}\r\n`, 'latin1')
  }

  writeHead(status: number, fields: readonly string[]): void {
    let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Unknown'}\r\n`
    for (let i = 0; i < fields.length; i += 2) head += `${fields[i] as string}: ${fields[i + 1] as string}\r\n`
    if (findField(fields, 'date').count === 0) head += `Date: ${httpDate()}\r\n`
    if (status === 204 || status === 304 || this.method === 'HEAD') this.#framing = 'none'
    else if (findField(fields, 'content-length').count > 0) this.#framing = 'length'
    // Whether the body that was announced comes now or the next request, nobody can tell.
    if (this.#expectsContinue && !this.#continued) this.shouldKeepAlive = false
    this.statusCode = status
    this.headersSent = true
    this.#head = head
  }

  write(chunk: Buffer): boolean
  write(chunk: string, encoding: BufferEncoding): boolean
  write(chunk: Buffer | string, encoding?: BufferEncoding): boolean {
    if (this.#ended) return true
    const head = this.#takeHead(undefined)
    const { socket } = this.#host
    const isEmpty = chunk.length === 0 || this.#framing === 'none'
    if (isEmpty) return head === '' || socket.write(head, 'latin1')
    if (typeof chunk === 'string') chunk = Buffer.from(chunk, encoding)
    const before = this.#framing === 'chunked' ? `${head}${chunk.length.toString(16)}\r\n` : head
    const after = this.#framing === 'chunked' ? '\r\n' : ''
    return this.#send(before, chunk, after)
  }

  #send(before: string, chunk: Buffer, after: string): boolean {
    const { socket } = this.#host
    if (chunk.length <= SMALL_BYTES) {
      return socket.write(before + chunk.toString('latin1') + after, 'latin1')
    }
    socket.cork()
    if (before !== '') socket.write(before, 'latin1')
    const more = socket.write(chunk)
    if (after !== '') socket.write(after, 'latin1')
    socket.uncork()
    return more
  }

  addTrailers(fields: readonly [string, string][]): void {
    this.#trailers = fields
  }

  end(chunk?: Buffer): void
  end(chunk: string, encoding?: BufferEncoding): void
  end(chunk: Buffer | string = '', encoding: BufferEncoding = 'utf8'): void {
    if (this.#ended) return
    const { socket } = this.#host
    if (typeof chunk !== 'string' && chunk.length > SMALL_BYTES) {
      this.write(chunk)
      chunk = ''
    }
    const body = toLatin1(chunk, encoding)
    const text = this.#takeHead(body.length)
    this.#ended = true
    socket.write(text + this.#toLastPart(body), 'latin1', this.#host.onSent)
  }

  #toLastPart(body: string): string {
    if (this.#framing === 'none') return ''
    if (this.#framing !== 'chunked') return body
    let last = body === '' ? '0\r\n' : `${body.length.toString(16)}\r\n${body}\r\n0\r\n`
    for (const [name, value] of this.#trailers) last += `${name}: ${value}\r\n`
    return `${last}\r\n`
  }

  destroy(): void {
    this.#host.socket.destroy()
  }

  /**
   * The head as it is written, with what says where the body ends; nothing when it was written before.
   *
   * @param length - of the body when all of it is there
   */
  #takeHead(length: number | undefined): string {
    const head = this.#head
    if (head === '') return ''
    this.#head = ''
    const framing = this.#decideFraming(length)
    const keepAlive = this.shouldKeepAlive ? this.#host.keepAliveFields : 'Connection: close\r\n'
    return `${head}${framing}${keepAlive}\r\n`
  }

  #decideFraming(length: number | undefined): string {
    if (this.#framing !== 'undecided') return ''
    if (length !== undefined && this.#trailers.length === 0) {
      this.#framing = 'length'
      return `Content-Length: ${length}\r\n`
    }
    if (this.httpVersionMinor === 1) {
      this.#framing = 'chunked'
      return 'Transfer-Encoding: chunked\r\n'
    }
    this.#framing = 'close'
    this.shouldKeepAlive = false
    return ''
  }
}

function isFraming(name: string, i: number): boolean {
  return i % 2 === 0 && /^(?:content-length|transfer-encoding)$/i.test(name)
}

/** One character per byte. */
function toLatin1(chunk: Buffer | string, encoding: BufferEncoding): string {
  if (typeof chunk !== 'string') return chunk.toString('latin1')
  return encoding === 'latin1' ? chunk : Buffer.from(chunk, encoding).toString('latin1')
}

function readBody(host: Http1Host): void {
  host.readBody()
}
