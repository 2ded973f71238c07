/** Follows the frames of one direction of a WebSocket (RFC 6455 §5.2), to know where one may be put between two others. */
export class FrameBoundary {
  /** Bytes of the frame under way that are still to come; 0 between frames, and while the head of one is being read. */
  #left = 0
  /** The head of a frame as far as it came. */
  #head: number[] = []

  /** Whether nothing of a frame is under way. */
  get atBoundary(): boolean {
    return this.#left === 0 && this.#head.length === 0
  }

  feed(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, chunk.length - at)
        this.#left -= step
        at += step
      } else {
        this.#head.push(chunk[at] as number)
        at += 1
        this.#readHead()
      }
    }
  }

  #readHead(): void {
    const head = this.#head
    const [, second = 0] = head
    if (head.length < 2) return
    const short = second & 0x7f
    const masked = second & 0x80 ? 4 : 0
    const extended = short === 126 ? 2 : short === 127 ? 8 : 0
    if (head.length < 2 + extended + masked) return
    const length = extended === 0 ? short : head.slice(2, 2 + extended).reduce((sum, byte) => sum * 256 + byte, 0)
    this.#left = length
    this.#head = []
  }
}

/** A Close frame from a server (RFC 6455 §5.5.1). */
export function closeFrame(code: 1001 | 1008): Buffer {
  return Buffer.from([0x88, 2, code >> 8, code & 0xff])
}
