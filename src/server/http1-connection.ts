import type { Socket } from 'node:net'
import { refusal, type CodedError, type RefusalCode } from '../errors.ts'
import { BodyReader } from '../http/body-reader.ts'
import { MessageFault } from '../http/field-line.ts'
import {
  checkUnfinished,
  END_OF_HEAD,
  lengthOfHead,
  readHttp1Request,
  skipEmptyLines,
  type Http1Request,
} from '../http/http1-request.ts'
import { Http1Call, type Http1Host } from './http1-call.ts'

export interface Http1Limits {
  /** Largest head of a request in bytes. */
  readonly headerBytes: number
  /** Time to send the whole head, in milliseconds. */
  readonly headersTimeoutMs: number
  /** How long an idle connection is kept, in milliseconds. */
  readonly keepAliveTimeoutMs: number
}

/** What its connections ask and tell. */
export interface Http1Owner {
  readonly limits: Http1Limits
  readonly keepAliveFields: string
  readonly draining: boolean
  /** A request, to be decided on and answered. */
  handle(call: Http1Call, expectsContinue: boolean, fault: CodedError | undefined): void
  /** @returns the answer to bytes that are no request, in full */
  refuse(code: RefusalCode, reason: string, peer: string): string
  /** Takes the connections that speak HTTP/2 by prior knowledge; what was read is put back. Absent where there are none. */
  readonly acceptHttp2: ((socket: Socket) => void) | undefined
  onClosed(connection: Http1Connection): void
}

const NOTHING = Buffer.alloc(0)
/** The first bytes of every connection that speaks HTTP/2 (RFC 9113 §3.4). No request of HTTP/1.1 begins with all of them. */
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
/** How long a peer may take to close a connection on which everything is said, in milliseconds. */
const LINGER_MS = 1_000

/**
 * `head`: the next request is waited for, or the rest of its head. `call`: one is being answered. `rest`: it was, and what is
 * left of its body is passed over. `over`: nothing is read any more. `tunnel`: the connection is somebody else's.
 */
type Phase = 'head' | 'call' | 'rest' | 'over' | 'tunnel'

/** A connection that speaks HTTP/1.1 (RFC 9112): its requests one after the other, each begun when the one ahead is answered. */
export class Http1Connection implements Http1Host {
  readonly socket: Socket
  readonly keepAliveFields: string
  readonly #owner: Http1Owner
  readonly #body: BodyReader
  readonly #peer: string
  #phase: Phase = 'head'
  /** What came of a head that is not complete. */
  #text = ''
  #served = 0
  #call: Http1Call | undefined = undefined
  /** What came behind the head, and is not read yet. */
  #held: Buffer = NOTHING
  /** Since when the peer is waited for, by `performance.now()`. */
  #sinceMs = performance.now()

  constructor(socket: Socket, owner: Http1Owner) {
    this.socket = socket
    this.keepAliveFields = owner.keepAliveFields
    this.#owner = owner
    this.#body = new BodyReader(owner.limits.headerBytes, 'request')
    // Kept, since a closed socket does not know it any more.
    this.#peer = socket.remoteAddress ?? ''
    socket.on('data', this.#onData)
    socket.on('end', this.#onEnd)
    socket.on('error', ignore)
    socket.on('close', this.#onClose)
  }

  /** The request under way, one that became a tunnel included. */
  get call(): Http1Call | undefined {
    return this.#call
  }

  /** Whether it carries nothing. */
  get idle(): boolean {
    return this.#phase === 'head' && this.#text === '' && this.#held.length === 0
  }

  /** Ends it when its peer takes too long. */
  checkTime(nowMs: number): void {
    const waited = nowMs - this.#sinceMs
    const { headersTimeoutMs, keepAliveTimeoutMs } = this.#owner.limits
    if (this.#phase === 'over') {
      if (waited >= LINGER_MS) this.socket.destroy()
    } else if (this.#phase === 'rest' || (this.idle && this.#served > 0)) {
      if (waited >= keepAliveTimeoutMs) this.socket.destroy()
    } else if (this.#phase === 'head' && waited >= headersTimeoutMs) {
      this.#refuse('request_timeout', this.#text === '' ? 'silent' : 'header')
    }
  }

  readonly #onData = (chunk: Buffer): void => {
    try {
      this.#take(chunk)
    } catch (error) {
      if (!(error instanceof MessageFault)) throw error
      this.#fail(error.message)
    }
  }

  #take(chunk: Buffer): void {
    if (this.#phase === 'head' && this.#held.length === 0) this.#readHead(chunk)
    else if (this.#phase === 'rest' || (this.#phase === 'call' && this.#isReading())) this.#readBody(chunk)
    else if (this.#phase === 'call' || this.#phase === 'head') this.#hold(chunk)
  }

  #isReading(): boolean {
    return !this.#body.done && this.#held.length === 0 && this.#call?.wanted === true
  }

  #readHead(chunk: Buffer): void {
    const before = this.#text.length
    const length = before === 0 ? lengthOfHead(chunk) : chunk.length
    const text = this.#text + chunk.toString('latin1', 0, length)
    if (text.startsWith('PRI') && this.#isHttp2(text)) return
    const start = skipEmptyLines(text)
    const end = text.indexOf(END_OF_HEAD, Math.max(start, before - 3))
    if ((end === -1 ? text.length : end) - start > this.#owner.limits.headerBytes)
      return this.#refuse('header_too_large')
    if (end === -1) return this.#await(text, start, before)
    this.#text = ''
    const next = end + END_OF_HEAD.length - before
    this.#begin(readHttp1Request(text.slice(start, end + 2)), next < chunk.length ? chunk.subarray(next) : NOTHING)
  }

  /** @returns whether the connection speaks HTTP/2, or may still turn out to */
  #isHttp2(text: string): boolean {
    const { acceptHttp2 } = this.#owner
    if (!text.startsWith(PREFACE)) {
      const mayBe = PREFACE.startsWith(text)
      if (mayBe) this.#text = text
      return mayBe
    }
    if (acceptHttp2 === undefined || this.#served > 0) {
      this.#refuse('upgrade_not_supported')
      return true
    }
    const { socket } = this
    this.#phase = 'tunnel'
    socket.off('data', this.#onData).off('end', this.#onEnd).off('error', ignore).off('close', this.#onClose).pause()
    socket.unshift(Buffer.from(text, 'latin1'))
    this.#owner.onClosed(this)
    acceptHttp2(socket)
    return true
  }

  #await(text: string, start: number, before: number): void {
    checkUnfinished(text.slice(start))
    if (before === 0) this.#sinceMs = performance.now()
    this.#text = text
  }

  #begin(request: Http1Request, rest: Buffer): void {
    const call = new Http1Call(request, this)
    this.#call = call
    this.#phase = 'call'
    this.#served += 1
    this.#held = rest
    if (this.#owner.draining) call.shouldKeepAlive = false
    if (request.upgrades) this.#handOver(call)
    else if (request.framing !== 'none') this.#body.begin(request.framing, request.length, call)
    this.#owner.handle(call, request.expectsContinue, request.fault)
  }

  /** From here on the bytes are for whoever answers the request to switch protocols. */
  #handOver(call: Http1Call): void {
    const { socket } = this
    this.#phase = 'tunnel'
    call.shouldKeepAlive = false
    call.tunnel = { socket, early: this.#held }
    socket.off('data', this.#onData).off('end', this.#onEnd).pause()
  }

  /** What comes while the request ahead is answered. */
  #hold(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    // Read on for a while, since it is by reading that one learns of a peer that has left.
    if (!this.#body.done || this.#held.length > this.#owner.limits.headerBytes) this.socket.pause()
  }

  readBody(): void {
    const call = this.#call
    if (this.#phase !== 'call' || call === undefined || call.paused || !call.wanted) return
    const held = this.#held
    if (!this.#body.done && held.length > 0) {
      this.#held = NOTHING
      this.#onData(held)
    }
    if (!call.paused) this.socket.resume()
  }

  #readBody(chunk: Buffer): void {
    const end = this.#body.read(chunk, 0)
    if (end < chunk.length && this.#phase !== 'over') this.#hold(chunk.subarray(end))
    if (this.#phase === 'rest' && this.#body.done) this.#next()
  }

  /** The response has left. */
  readonly onSent = (error?: Error | null): void => {
    const call = this.#call
    if (error || call === undefined || this.#phase === 'over') return
    this.#call = undefined
    call.settle(true)
    if (!call.shouldKeepAlive) this.#finish()
    else if (this.#body.done) this.#next()
    else this.#passOver()
  }

  /** Nobody wants the rest of the body; behind it comes the next request. */
  #passOver(): void {
    this.#phase = 'rest'
    this.#sinceMs = performance.now()
    const held = this.#held
    this.#held = NOTHING
    if (held.length > 0) this.#onData(held)
    this.socket.resume()
  }

  #next(): void {
    this.#phase = 'head'
    this.#sinceMs = performance.now()
    // A single read can bring two thousand requests: those of other connections come in between.
    if (this.#held.length > 0) setImmediate(this.#readHeld)
    // Whoever could not take the last part of the body does not ask for more.
    else if (this.socket.isPaused()) this.socket.resume()
  }

  readonly #readHeld = (): void => {
    if (this.#phase !== 'head') return
    const held = this.#held
    this.#held = NOTHING
    this.#onData(held)
    if (this.#phase === 'head') this.socket.resume()
  }

  /** No more is read; the peer may take what was written, and should close. */
  #finish(): void {
    const { socket } = this
    this.#phase = 'over'
    this.#sinceMs = performance.now()
    this.#body.stop()
    this.#held = NOTHING
    socket.end()
    socket.resume()
  }

  /** What came is no HTTP/1.1. */
  #fail(reason: string): void {
    const call = this.#call
    if (this.#phase === 'rest') return this.#finish()
    if (call === undefined) return this.#refuse('header_invalid', reason)
    this.#body.stop()
    call.shouldKeepAlive = false
    if (!call.takeFault(refusal('header_invalid', { reason }))) this.socket.destroy()
  }

  #refuse(code: RefusalCode, reason: string = code): void {
    const answer = this.#owner.refuse(code, reason, this.#peer)
    if (this.socket.writable) this.socket.write(answer, 'latin1')
    this.#finish()
  }

  readonly #onClose = (): void => {
    this.#phase = 'over'
    this.#owner.onClosed(this)
    this.#call?.settle(false)
  }

  readonly #onEnd = (): void => {
    if (this.#call !== undefined) this.socket.destroy()
    else if (this.#phase === 'head' && this.#text !== '') this.#refuse('header_invalid', 'cut off')
    else this.#finish()
  }
}

function ignore(): void {}
