import type { ServerHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

export interface PeerTimes {
  /** How long a connection without requests is kept, in milliseconds. */
  readonly keepAliveTimeoutMs: number
  /** Silence, with requests in flight, after which the peer is asked whether it is still there; in milliseconds. */
  readonly pingAfterMs: number
  /** How long it may take to answer that, in milliseconds. */
  readonly pingTimeoutMs: number
  /** How long it may take nothing of what is still to be said when the connection is at its end, in milliseconds. */
  readonly sendTimeoutMs: number
}

/** How long a peer may take to close a connection on which everything is said, in milliseconds. */
const LINGER_MS = 500
/**
 * A GOAWAY that announces the end and refuses nothing yet: no stream is too late for it (RFC 9113 §6.8). It is written past
 * the library, which from its own GOAWAY on, whatever that says, drops new streams without a word.
 */
const NOTICE = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])

/** One connection that speaks HTTP/2, and what is known of it. */
export class Http2Peer {
  readonly socket: Socket
  /** Kept, since a closed socket does not know it any more. */
  readonly address: string
  readonly session: ServerHttp2Session
  /** Requests in flight. */
  open = 0
  /** What the library writes to: the socket, or what is within it. */
  readonly #transport: Duplex
  /** Since when there are no requests, by `performance.now()`. */
  #idleSinceMs = performance.now()
  /** Whether it was asked to open no further streams. */
  #asked = false
  /** When everything had been sent, by `performance.now()`. */
  #doneMs: number | undefined = undefined
  /** The number of the last stream that is accounted for; 0 before the first. */
  #lastStream = 0
  /** The numbers of the streams that nobody has seen, from first to last. */
  #unseen: { readonly from: number; to: number } | undefined = undefined
  /** How many bytes have come and gone, and when that last changed, by `performance.now()`. */
  #bytes = 0
  #movedMs = performance.now()
  #pingedMs: number | undefined = undefined
  /** Since when the connection is at its end, by `performance.now()`. */
  #overMs: number | undefined = undefined

  constructor(session: ServerHttp2Session, socket: Socket, transport: Duplex) {
    this.session = session
    this.socket = socket
    this.address = socket.remoteAddress ?? ''
    this.#transport = transport
  }

  /** A stream has come. */
  onStream(id: number): void {
    this.open += 1
    // Its header came in pieces, and it was missed meanwhile.
    if (this.#unseen?.to === id) this.#unseen.to -= 2
    // Before their first request, some clients use numbers for priorities alone (RFC 7540 §5.3).
    if (this.#lastStream !== 0) this.#miss(id - 2)
    this.#lastStream = id
  }

  /** A stream has ended. */
  onStreamClosed(): void {
    this.open -= 1
    this.#idleSinceMs = performance.now()
  }

  /** Asks it to open no further streams; those that are on their way are still served. */
  ask(): void {
    if (this.#asked || this.session.closed || !this.#transport.writable) return
    this.#asked = true
    this.#transport.write(NOTICE)
  }

  /**
   * Looks after idleness and silence; to be called now and then.
   *
   * @returns as `takeUnseen` does, but for those that may still be seen
   */
  check(nowMs: number, times: PeerTimes): string | undefined {
    const unseen = this.takeUnseen()
    if (this.#hasMoved(nowMs)) this.look()
    if (this.session.destroyed) {
      // The library waits until its peer has taken the rest, for ever if need be.
      this.#overMs ??= nowMs
      if (nowMs - Math.max(this.#overMs, this.#movedMs) >= times.sendTimeoutMs) this.socket.destroy()
    } else if (this.open === 0) {
      // A GOAWAY, and then the connection, whether or not the peer closes it.
      if (nowMs - this.#idleSinceMs >= times.keepAliveTimeoutMs) this.session.destroy()
    } else if (this.#pingedMs !== undefined) {
      if (nowMs - this.#pingedMs >= times.pingTimeoutMs) this.cut()
    } else if (nowMs - this.#movedMs >= times.pingAfterMs) this.#ping(nowMs)
    return unseen
  }

  /** Looks for streams that the library reset before anybody saw them. */
  look(): void {
    if (this.session.destroyed) return
    const { lastProcStreamID = 0 } = this.session.state
    if (lastProcStreamID <= this.#lastStream) return
    this.#miss(lastProcStreamID)
    this.#lastStream = lastProcStreamID
  }

  /** @returns the numbers of the streams that nobody has seen since the last call, as text; `undefined` for none */
  takeUnseen(): string | undefined {
    const unseen = this.#unseen
    this.#unseen = undefined
    return unseen === undefined || unseen.to < unseen.from ? undefined : `${unseen.from}-${unseen.to}`
  }

  /** While closing: lets go of a connection that is done, but whose peer does not close it. */
  sweep(nowMs: number): void {
    if (!this.session.destroyed || !this.socket.writableFinished) return
    this.#doneMs ??= nowMs
    if (nowMs - this.#doneMs >= LINGER_MS) this.socket.destroy()
  }

  /** Closes the connection at once. */
  cut(): void {
    this.session.destroy()
    this.socket.destroy()
  }

  /** Streams up to this one are unseen, but for those that were seen. */
  #miss(upTo: number): void {
    const from = this.#lastStream === 0 ? upTo : this.#lastStream + 2
    if (upTo >= from) this.#unseen = { from: this.#unseen?.from ?? from, to: upTo }
  }

  /** Whether anything came or went since the last call. */
  #hasMoved(nowMs: number): boolean {
    const bytes = this.socket.bytesRead + this.socket.bytesWritten
    if (bytes === this.#bytes) return false
    this.#bytes = bytes
    this.#movedMs = nowMs
    return true
  }

  #ping(nowMs: number): void {
    this.#pingedMs = nowMs
    this.session.ping(() => (this.#pingedMs = undefined))
  }
}
