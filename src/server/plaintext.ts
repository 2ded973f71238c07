import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'

type Done = (error?: Error | null) => void

/**
 * What is said within a connection of TLS, as a stream of its own. Given the socket itself, node:http2 reads and writes below
 * it, and whatever else is written to it ends the process when both write at once; given this, it writes here, whole frames
 * at a time, and others may write in between.
 */
export class Plaintext extends Duplex {
  readonly #socket: TLSSocket

  constructor(socket: TLSSocket) {
    super({ allowHalfOpen: false })
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause()
    })
    socket.on('end', () => this.push(null))
    socket.on('error', (error) => this.destroy(error))
    socket.on('close', () => this.destroy())
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#socket.write(chunk, done)
  }

  /** Small ones join one record. */
  override _writev(parts: { chunk: Buffer }[], done: Done): void {
    const socket = this.#socket
    const last = parts.pop()
    socket.cork()
    for (const { chunk } of parts) socket.write(chunk)
    socket.write(last?.chunk ?? '', done)
    socket.uncork()
  }

  override _final(done: Done): void {
    this.#socket.end(done)
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#socket.destroy()
    done(error)
  }
}
