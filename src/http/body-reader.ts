import { MessageFault, readFieldLine } from './field-line.ts'

/** How the end of a body is told (RFC 9112 §6.3): by its length, by its chunks, or by the end of the connection. */
export type Framing = 'length' | 'chunked' | 'close'

/** What becomes of a body as it is read. Chunks are valid during the call only. */
export interface BodySink {
  /** A part of the body. `last`: it is the last one, and no `onEnd` follows. */
  onData(chunk: Buffer, last: boolean): void
  /** The end of a body whose last part was not known to be it, with the trailer fields as received, if any. */
  onEnd(trailers?: readonly string[]): void
}

/** Longest line between chunks, in bytes. */
const MAX_LINE_BYTES = 1024
/** A size and its extensions, which are read over (RFC 9112 §7.1.1). Eight digits are 4 GiB in one chunk. */
const STRICT_SIZE =
  /^([0-9a-fA-F]{1,8})(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"[^"\\\x00-\x1f\x7f]*"))?)*$/
/** As servers write them, with blanks anywhere. */
const LENIENT_SIZE = /^([0-9a-fA-F]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/

type State = 'length' | 'close' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'done'

const FIRST_STATE = { length: 'length', chunked: 'chunk-size', close: 'close' } as const

/** Reads the bodies of one direction of a connection, one after the other, as their bytes come (RFC 9112 §6 and §7). */
export class BodyReader {
  #state: State = 'done'
  #sink: BodySink | undefined = undefined
  /** Bytes left of the body or chunk. */
  #left = 0
  /** Text of a line that is not complete yet. */
  #pending = ''
  #trailerBytes = 0
  #trailers: string[] | undefined = undefined
  readonly #maxTrailerBytes: number
  readonly #chunkSize: RegExp

  /**
   * @param maxTrailerBytes - all trailer fields of a body together
   * @param kind - what the bodies are of: in a request nothing passes that another parser may read differently
   */
  constructor(maxTrailerBytes: number, kind: 'request' | 'response') {
    this.#maxTrailerBytes = maxTrailerBytes
    this.#chunkSize = kind === 'request' ? STRICT_SIZE : LENIENT_SIZE
  }

  /** @param length - bytes, more than 0, of a body whose length is known */
  begin(framing: Framing, length: number, sink: BodySink): void {
    this.#state = FIRST_STATE[framing]
    this.#left = length
    this.#sink = sink
    this.#pending = ''
  }

  /** Whether no more of a body is to come. */
  get done(): boolean {
    return this.#state === 'done'
  }

  /** Nothing more is read, and nobody is told. */
  stop(): void {
    this.#state = 'done'
    this.#sink = undefined
  }

  /**
   * Takes bytes, up to the end of the body.
   *
   * @returns where in the chunk that is
   * @throws MessageFault; the connection must be closed then
   */
  read(chunk: Buffer, from: number): number {
    let at = from
    while (at < chunk.length && this.#state !== 'done') at = this.#step(chunk, at)
    return at
  }

  /**
   * The peer closed its side.
   *
   * @returns whether that is the end of the body
   */
  end(): boolean {
    if (this.#state !== 'close') return this.#state === 'done'
    this.#finish()
    return true
  }

  #step(chunk: Buffer, at: number): number {
    const state = this.#state
    if (state === 'length' || state === 'chunk') return this.#readCounted(chunk, at)
    if (state !== 'close') return this.#readLine(chunk, at)
    this.#sink?.onData(at === 0 ? chunk : chunk.subarray(at), false)
    return chunk.length
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
    this.#pending = feed === -1 ? line : ''
    const isTrailer = this.#state === 'trailers'
    if (line.length > (isTrailer ? this.#maxTrailerBytes : MAX_LINE_BYTES)) throw new MessageFault('line too long')
    if (feed === -1) {
      if (!isTrailer && !mayBecomeLine(line)) throw new MessageFault('chunk size')
      return end
    }
    if (!line.endsWith('\r\n')) throw new MessageFault('line break')
    if (isTrailer) this.#takeTrailer(line)
    else this.#takeLine(line.slice(0, -2))
    return end
  }

  #takeLine(line: string): void {
    if (this.#state === 'chunk-end') {
      if (line !== '') throw new MessageFault('chunk longer than its size')
      this.#state = 'chunk-size'
      return
    }
    const size = this.#chunkSize.exec(line)?.[1]
    if (size === undefined) throw new MessageFault('chunk size')
    this.#left = parseInt(size, 16)
    this.#trailerBytes = 0
    this.#trailers = undefined
    this.#state = this.#left === 0 ? 'trailers' : 'chunk'
  }

  #takeTrailer(line: string): void {
    if (line === '\r\n') return this.#finish(this.#trailers)
    this.#trailerBytes += line.length
    if (this.#trailerBytes > this.#maxTrailerBytes) throw new MessageFault('trailers too large')
    readFieldLine(line, 0, (this.#trailers ??= []))
  }

  #finish(trailers?: readonly string[]): void {
    this.#state = 'done'
    const sink = this.#sink
    this.#sink = undefined
    sink?.onEnd(trailers)
  }
}

/** Whether what came of a line between chunks can still become one: nobody should wait for the end of nonsense. */
function mayBecomeLine(text: string): boolean {
  return /^[0-9a-fA-F]{0,8}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?$/.test(text)
}
