import type { Socket } from 'node:net'
import { refusal, UpstreamError, type CodedError, type Refusal, type UpstreamCode } from '../errors.ts'
import { MessageFault } from '../http/field-line.ts'
import type { CallerRequest } from '../server/caller.ts'
import type { Dial } from './dial.ts'
import { atEndOfTurn } from './end-of-turn.ts'
import { ResponseReader, type ResponseSink } from './response-reader.ts'

/** One request for the upstream, and who takes its response. */
export interface UpstreamRequest extends ResponseSink {
  readonly method: string
  /** For HTTP/1.1: request line and header fields with the empty line, one character per byte. */
  readonly head: string
  /** For HTTP/2: all header fields, flat, for a connection of this scheme. */
  http2Head(scheme: 'http' | 'https'): string[]
  /** The caller's request when it has a body to be sent on. */
  readonly body: CallerRequest | undefined
  /** The trailer fields of the body that may travel on, flat; complete once it has ended. */
  readonly trailers: string[]
  /** Whether the body is sent in chunks rather than as the Content-Length in `head` says. */
  readonly chunked: boolean
  /** The caller left, and the answer is not wanted any more. */
  readonly cancelled: boolean
  /** Whether the caller cannot take more of the response for now. Whoever clears it calls `resume()`. */
  readonly blocked: boolean
  /** Where it was sent. */
  connection: Carriage | undefined
  /** All that came is good so far, and need not be held back any longer. */
  flush(): void
  /** Called once when there is no complete response. */
  onFailure(error: CodedError): void
}

/** A request under way to the upstream. */
export interface Carriage {
  /** Gives it up; nothing of its response is wanted any more. */
  cancel(): void
  /** The caller can take more of the response. */
  resume(): void
}

export interface ConnectionOptions {
  readonly dial: Dial
  /** All in milliseconds. */
  readonly connectTimeoutMs: number
  /** From the last byte of the request to the head of the response. */
  readonly responseTimeoutMs: number
  /** Longest silence within a body of a response; 0 for none. */
  readonly idleTimeoutMs: number
  /** Longest silence of a caller within the body of its request. */
  readonly bodyTimeoutMs: number
}

/** What the pool is told by its connections. */
export interface ConnectionOwner {
  /** The response is complete and the connection may carry another request. */
  onIdle(connection: Connection): void
  onClosed(connection: Connection): void
  /** A request whose fate is known to be unharmed: nothing came back on a connection used before. */
  onStale(request: UpstreamRequest): void
}

/** Shared by all connections: what is read into it is used up before the next read. */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 * 1024)
/** Methods that may be sent again when nothing came back (RFC 9110 §9.2.2). */
export const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
const CRLF = '\r\n'

/** One connection to the upstream: carries one request at a time. */
export class Connection implements Carriage {
  readonly #socket: Socket
  readonly #options: ConnectionOptions
  readonly #owner: ConnectionOwner
  readonly #reader = new ResponseReader()
  readonly #connectTimer: NodeJS.Timeout
  #request: UpstreamRequest | undefined
  #connected = false
  #sent = 0
  /** The head of the request under way for as long as it has not left. */
  #held = ''
  #uploading = false
  /** While a body is sent: whether its next part is the upstream's to take, or the caller's to send. */
  #awaitsCaller = false
  #closed = false
  /** When the request under way has waited too long, by `performance.now()`. */
  #deadlineMs = Infinity
  /** Since when it carries nothing. */
  idleSinceMs = 0
  /** How long it may be idle, as the server announced. */
  keepAliveMs = Infinity

  constructor(options: ConnectionOptions, owner: ConnectionOwner) {
    this.#options = options
    this.#owner = owner
    const { dial } = options
    const socket = dial.open({ buffer: READ_BUFFER, callback: (bytes) => this.#read(bytes) })
    this.#socket = socket
    this.#connectTimer = setTimeout(() => this.#fail('upstream_timeout', 'connect'), options.connectTimeoutMs)
    socket.once(dial.ready, () => {
      this.#connected = true
      clearTimeout(this.#connectTimer)
    })
    socket.on('drain', () => this.#resumeUpload())
    socket.on('end', () => this.#end())
    socket.on('error', (error: NodeJS.ErrnoException) => this.#fail(toFailureCode(error), error.code ?? error.name))
    socket.on('close', () => this.#fail('upstream_reset', 'closed'))
  }

  /** Sends a request, at the end of this turn unless it has a body; the connection must be idle. */
  send(request: UpstreamRequest): void {
    this.#request = request
    request.connection = this
    this.#sent += 1
    this.#reader.expect(request.method, request)
    this.#held = request.head
    this.#deadlineMs = performance.now() + this.#options.responseTimeoutMs
    if (request.body === undefined) return atEndOfTurn(this.#leave)
    this.#leave()
    this.#upload(request.body, request.chunked)
  }

  readonly #leave = (): void => {
    if (this.#held !== '') this.#socket.write(this.#held, 'latin1')
    this.#held = ''
  }

  /** Gives up the request under way, and the connection with it. */
  cancel(): void {
    this.#fail('caller_gone', 'cancelled')
  }

  /** The caller can take more of the response. */
  resume(): void {
    this.#touch()
    this.#socket.resume()
  }

  /** Closes the connection; a request under way fails. */
  close(): void {
    this.#fail('upstream_reset', 'shutdown')
  }

  /** Ends the request under way if it has waited too long. */
  checkDeadline(nowMs: number): void {
    if (nowMs < this.#deadlineMs || this.#request?.blocked === true) return
    if (this.#awaitsCaller) return this.#abandon(refusal('request_timeout', { reason: 'body' }))
    this.#fail('upstream_timeout', this.#reader.begun ? 'idle' : 'response')
  }

  #read(bytes: number): boolean {
    if (this.#request === undefined || this.#held !== '') {
      this.#fail('upstream_invalid_response', 'bytes that nobody asked for')
      return false
    }
    try {
      this.#reader.read(bytes === READ_BUFFER.length ? READ_BUFFER : READ_BUFFER.subarray(0, bytes))
    } catch (error) {
      if (!(error instanceof MessageFault)) throw error
      this.#fail('upstream_invalid_response', error.message)
      return false
    }
    if (this.#reader.busy) {
      this.#touch()
      this.#request.flush()
    } else this.#complete()
    return this.#request?.blocked !== true
  }

  #touch(): void {
    const { idleTimeoutMs } = this.#options
    if (!this.#reader.begun) return
    this.#awaitsCaller = false
    // A stream of events, or of gRPC, is silent while nothing happens.
    const isFree = idleTimeoutMs === 0 || this.#reader.mayBeSilent
    this.#deadlineMs = isFree ? Infinity : performance.now() + idleTimeoutMs
  }

  #end(): void {
    if (this.#reader.busy && this.#reader.end()) this.#complete()
    this.#fail('upstream_reset', 'closed')
  }

  #complete(): void {
    this.#detach()
    this.keepAliveMs = this.#reader.keepAliveMs ?? Infinity
    // A request that the server did not want to the end leaves the connection in the middle of it.
    if (this.#uploading || !this.#reader.reusable) return this.#destroy()
    this.#owner.onIdle(this)
  }

  #awaitCaller(): void {
    // Once the response comes, its own silence counts.
    if (this.#reader.begun) return
    this.#awaitsCaller = true
    this.#deadlineMs = performance.now() + this.#options.bodyTimeoutMs
  }

  #upload(body: CallerRequest, chunked: boolean): void {
    this.#uploading = true
    this.#awaitCaller()
    body.on('error', ignore)
    body.on('data', (chunk: Buffer) => {
      if (this.#request?.body !== body) return
      if (chunked) {
        this.#holdBack()
        this.#socket.write(chunk.length.toString(16) + CRLF, 'latin1')
      }
      const more = this.#socket.write(chunk)
      if (chunked) this.#socket.write(CRLF, 'latin1')
      if (more) return this.#awaitCaller()
      // From here on it is the upstream that is slow.
      this.#awaitsCaller = false
      this.#deadlineMs = performance.now() + this.#options.responseTimeoutMs
      body.pause()
    })
    body.on('end', () => {
      if (this.#request?.body !== body) return
      this.#uploading = false
      this.#awaitsCaller = false
      if (chunked) this.#socket.write(toLastChunk(this.#request.trailers), 'latin1')
      if (!this.#reader.begun) this.#deadlineMs = performance.now() + this.#options.responseTimeoutMs
    })
  }

  /** Chunks that came together leave together, however small the caller made them. */
  #holdBack(): void {
    if (this.#socket.writableCorked > 0) return
    this.#socket.cork()
    process.nextTick(() => this.#socket.uncork())
  }

  #resumeUpload(): void {
    if (!this.#uploading) return
    this.#awaitCaller()
    this.#request?.body?.resume()
  }

  #fail(code: UpstreamCode, cause: string): void {
    if (this.#closed) return
    const unsent = this.#held !== '' && code !== 'caller_gone'
    const request = this.#detach()
    const stale = request !== undefined && (unsent || code === 'upstream_reset') && this.#isStale(request, unsent)
    this.#destroy()
    if (request === undefined) return
    if (stale) this.#owner.onStale(request)
    else request.onFailure(new UpstreamError(this.#connected ? code : toConnectCode(code), { cause }))
  }

  /** The caller is at fault: the request ends, and the connection in the middle of it. */
  #abandon(fault: Refusal): void {
    const request = this.#detach()
    this.#destroy()
    request?.onFailure(fault)
  }

  #detach(): UpstreamRequest | undefined {
    const request = this.#request
    this.#request = undefined
    this.#held = ''
    this.#deadlineMs = Infinity
    this.#awaitsCaller = false
    if (request !== undefined) request.connection = undefined
    // What is left of a body that nobody wants: it is read, or the caller's connection could not serve another request.
    if (this.#uploading) request?.body?.resume()
    return request
  }

  /** The server closed an idle connection just as the next request was sent: the oldest race of keep-alive. */
  #isStale({ method, body }: UpstreamRequest, unsent: boolean): boolean {
    return this.#sent > 1 && (unsent || (!this.#reader.touched && body === undefined && IDEMPOTENT.has(method)))
  }

  #destroy(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#connectTimer)
    this.#socket.destroy()
    this.#owner.onClosed(this)
  }
}

function ignore(): void {}

/** The chunk that ends a body, with the trailer fields (RFC 9112 §7.1). */
function toLastChunk(trailers: readonly string[]): string {
  let text = '0\r\n'
  for (let i = 0; i < trailers.length; i += 2) text += `${trailers[i] as string}: ${trailers[i + 1] as string}\r\n`
  return text + CRLF
}

/** Before a connection stands, whatever ends it means that the upstream cannot be reached. */
function toConnectCode(code: UpstreamCode): UpstreamCode {
  return code === 'upstream_reset' ? 'upstream_unreachable' : code
}

/** What an error of a connection means. */
export function toFailureCode({ code }: NodeJS.ErrnoException): UpstreamCode {
  if (code === 'ETIMEDOUT') return 'upstream_timeout'
  return code === 'ECONNRESET' || code === 'EPIPE' ? 'upstream_reset' : 'upstream_unreachable'
}
