import { BodyReader, type BodySink } from '../http/body-reader.ts'
import { MessageFault } from '../http/field-line.ts'
import { readResponseHead, type ResponseHead } from '../http/response-head.ts'

/** What a caller is told of the head of a response. */
export type Head = Pick<ResponseHead, 'status' | 'fields'>

/** What becomes of a response as it is read. Chunks are valid during the call only. */
export interface ResponseSink extends BodySink {
  /** The head. `followed`: more of the response came with it, and a call of `onData` or `onEnd` follows at once. */
  onHead(head: Head, followed: boolean): void
  /** An interim response with status 103 (RFC 8297); others are passed over. */
  onEarlyHints?(fields: readonly string[]): void
}

/** Longest head in bytes. */
const MAX_HEAD_BYTES = 64 * 1024
/** Most interim responses to one request: one of each kind would be enough. */
const MAX_INTERIM = 32

type State = 'head' | 'body' | 'done'

/**
 * Reads the responses of one connection, one after the other, as their bytes come (RFC 9112 §6 and §7). Interim responses
 * (1xx) are passed over; a switch of protocols is a fault, since none was asked for.
 */
export class ResponseReader {
  #state: State = 'done'
  #sink: ResponseSink | undefined
  #isHeadRequest = false
  readonly #body = new BodyReader(MAX_HEAD_BYTES, 'response')
  /** Text of a head that is not complete yet. */
  #pending = ''
  #reusable = false
  #touched = false
  #interim = 0
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
   * @throws MessageFault; the connection must be closed then
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
    if (this.#state === 'body' && this.#body.end()) this.#state = 'done'
    return this.#state === 'done'
  }

  #step(chunk: Buffer, at: number): number {
    if (this.#state === 'head') return this.#readHead(chunk, at)
    const next = this.#body.read(chunk, at)
    if (this.#body.done) this.#state = 'done'
    return next
  }

  #readHead(chunk: Buffer, at: number): number {
    const before = this.#pending.length
    // Most heads come whole: then the text is made once, and of the head alone.
    const mark = before === 0 ? chunk.indexOf('\r\n\r\n', at, 'latin1') : -1
    const text = this.#pending + chunk.toString('latin1', at, mark === -1 ? chunk.length : mark + 4)
    const end = mark === -1 ? text.indexOf('\r\n\r\n', Math.max(0, before - 3)) : text.length - 4
    if ((end === -1 ? text.length : end) > MAX_HEAD_BYTES) throw new MessageFault('head too large')
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
    this.#state = empty ? 'done' : 'body'
    this.keepAliveMs = head.keepAliveMs
    this.mayBeSilent = head.mayBeSilent
    const sink = this.#sink as ResponseSink
    this.#sink = undefined
    if (!empty) this.#body.begin(framing, length, sink)
    sink.onHead(head, more || empty)
    if (empty) sink.onEnd()
  }

  #passOver({ status, fields }: ResponseHead): void {
    if (status === 101) throw new MessageFault('switched protocols unasked')
    this.#interim += 1
    if (this.#interim > MAX_INTERIM) throw new MessageFault('too many interim responses')
    if (status === 103) this.#sink?.onEarlyHints?.(fields)
  }
}
