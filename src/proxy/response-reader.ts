import { readResponseHead, readTrailerField, ResponseFault, type ResponseHead } from '../http/response-head.ts'

/** What a caller is told of the head of a response. */
export type Head = Pick<ResponseHead, 'status' | 'fields'>

/** What becomes of a response as it is read. Chunks are valid during the call only. */
export interface ResponseSink {
  /** The head. `followed`: more of the response came with it, and a call of `onData` or `onEnd` follows at once. */
  onHead(head: Head, followed: boolean): void
  /** An interim response with status 103 (RFC 8297); others are passed over. */
  onEarlyHints?(fields: readonly string[]): void
  /** A part of the body. `last`: it is the last one, and no `onEnd` follows. */
  onData(chunk: Buffer, last: boolean): void
  /** The end of a body whose last part was not known to be it, with the trailer fields as received, if any. */
  onEnd(trailers?: readonly string[]): void
}

/** Longest head, and longest line between chunks, in bytes. */
const MAX_HEAD_BYTES = 64 * 1024
const MAX_LINE_BYTES = 1024
/** Most interim responses to one request: one of each kind would be enough. */
const MAX_INTERIM = 32
const CHUNK_SIZE = /^([0-9a-fA-F]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/

type State = 'head' | 'length' | 'close' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'done'

const FIRST_STATE = { length: 'length', chunked: 'chunk-size', close: 'close' } as const

/**
 * Reads the responses of one connection, one after the other, as their bytes come (RFC 9112 §6 and §7). Interim responses
 * (1xx) are passed over; a switch of protocols is a fault, since none was asked for.
 */
export class ResponseReader {
  #state: State = 'done'
  #sink: ResponseSink | undefined
  #isHeadRequest = false
  /** Text of a head or line that is not complete yet. */
  #pending = ''
  /** Bytes left of the body or chunk. */
  #left = 0
  #reusable = false
  #touched = false
  #interim = 0
  #trailerBytes = 0
  #trailers: string[] | undefined = undefined
  /** What the head of the last response announced; see ResponseHead. */
  keepAliveMs: number | undefined
  /** Whether the body of the last response may be silent for as long as it likes. */
  mayBeSilent = false

  /** Begins to read the response to a request. */
  expect(method: string, sink: ResponseSink): void {
    this.#state = 'head'
    this.#sink = sink
    this.#isHeadRequest = method === 'HEAD'
    this.#pending = ''
    this.#reusable = false
    this.#touched = false
    this.#interim = 0
    this.mayBeSilent = false
  }

  /** Whether a response is wanted that is not complete. */
  get busy(): boolean {
    return this.#state !== 'done'
  }

  /** Whether the head of the response has come. */
  get begun(): boolean {
    return this.#state !== 'head'
  }

  /** Whether a single byte in answer has come. */
  get touched(): boolean {
    return this.#touched
  }

  /** Whether the connection may carry another request, once the response is complete. */
  get reusable(): boolean {
    return this.#reusable
  }

  /**
   * Takes bytes from the connection.
   *
   * @throws ResponseFault; the connection must be closed then
   */
  read(chunk: Buffer): void {
    let at = 0
    this.#touched = true
    while (at < chunk.length) {
      // Bytes that nobody asked for: whatever they are, they must not become the answer to the next request.
      if (this.#state === 'done') {
        this.#reusable = false
        return
      }
      at = this.#step(chunk, at)
    }
  }

  /**
   * The server closed its side.
   *
   * @returns whether that completed the response
   */
  end(): boolean {
    if (this.#state !== 'close') return this.#state === 'done'
    this.#finish()
    return true
  }

  #step(chunk: Buffer, at: number): number {
    const state = this.#state
    if (state === 'head') return this.#readHead(chunk, at)
    if (state === 'length' || state === 'chunk') return this.#readCounted(chunk, at)
    if (state !== 'close') return this.#readLine(chunk, at)
    this.#sink?.onData(at === 0 ? chunk : chunk.subarray(at), false)
    return chunk.length
  }

  #readHead(chunk: Buffer, at: number): number {
    const before = this.#pending.length
    // Most heads come whole: then the text is made once, and of the head alone.
    const mark = before === 0 ? chunk.indexOf('\r\n\r\n', at, 'latin1') : -1
    const text = this.#pending + chunk.toString('latin1', at, mark === -1 ? chunk.length : mark + 4)
    const end = mark === -1 ? text.indexOf('\r\n\r\n', Math.max(0, before - 3)) : text.length - 4
    if ((end === -1 ? text.length : end) > MAX_HEAD_BYTES) throw new ResponseFault('head too large')
    if (end === -1) {
      this.#pending = text
      return chunk.length
    }
    this.#pending = ''
    const next = at + end + 4 - before
    this.#begin(readResponseHead(text.slice(0, end + 2)), next < chunk.length)
    return next
  }

  #begin(head: ResponseHead, more: boolean): void {
    const { status, framing, length } = head
    if (status < 200) return this.#passOver(head)
    const bodiless = this.#isHeadRequest || status === 204 || status === 304
    const empty = bodiless || length === 0
    this.#reusable = head.persistent && (bodiless || framing !== 'close')
    this.#state = empty ? 'done' : FIRST_STATE[framing]
    this.#left = length
    this.keepAliveMs = head.keepAliveMs
    this.mayBeSilent = head.mayBeSilent
    this.#sink?.onHead(head, more || empty)
    if (empty) this.#finish()
  }

  #passOver({ status, fields }: ResponseHead): void {
    if (status === 101) throw new ResponseFault('switched protocols unasked')
    this.#interim += 1
    if (this.#interim > MAX_INTERIM) throw new ResponseFault('too many interim responses')
    if (status === 103) this.#sink?.onEarlyHints?.(fields)
  }

  #readCounted(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#left)
    this.#left -= end - at
    const complete = this.#left === 0
    const last = complete && this.#state === 'length'
    if (complete) this.#state = last ? 'done' : 'chunk-end'
    const part = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end)
    const sink = this.#sink
    if (last) this.#sink = undefined
    sink?.onData(part, last)
    return end
  }

  #readLine(chunk: Buffer, at: number): number {
    const feed = chunk.indexOf(10, at)
    const end = feed === -1 ? chunk.length : feed + 1
    const line = this.#pending + chunk.toString('latin1', at, end)
    if (line.length > MAX_LINE_BYTES) throw new ResponseFault('line too long')
    this.#pending = feed === -1 ? line : ''
    if (feed === -1) return end
    if (!line.endsWith('\r\n')) throw new ResponseFault('line break')
    this.#takeLine(line.slice(0, -2))
    return end
  }

  #takeLine(line: string): void {
    if (this.#state === 'chunk-size') {
      const size = CHUNK_SIZE.exec(line)?.[1]
      if (size === undefined) throw new ResponseFault('chunk size')
      this.#left = parseInt(size, 16)
      this.#trailerBytes = 0
      this.#trailers = undefined
      this.#state = this.#left === 0 ? 'trailers' : 'chunk'
    } else if (this.#state === 'chunk-end') {
      if (line !== '') throw new ResponseFault('chunk longer than its size')
      this.#state = 'chunk-size'
    } else if (line === '') {
      this.#finish(this.#trailers)
    } else {
      this.#trailerBytes += line.length
      if (this.#trailerBytes > MAX_HEAD_BYTES) throw new ResponseFault('trailers too large')
      readTrailerField(line, (this.#trailers ??= []))
    }
  }

  #finish(trailers?: readonly string[]): void {
    this.#state = 'done'
    const sink = this.#sink
    this.#sink = undefined
    sink?.onEnd(trailers)
  }
}
