import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import type { UpstreamCode } from '../errors.ts'
import type { ConnectionOptions, UpstreamRequest } from './connection.ts'
import { Http2Carriage, type CarriageOwner } from './http2-carriage.ts'

export interface SessionOptions extends ConnectionOptions {
  /**
   * Silence, with requests in flight, after which the upstream is asked whether it is still there; in milliseconds. Servers
   * of gRPC take a ping every five minutes for abuse if nothing else happens.
   */
  readonly pingAfterMs: number
  /** How long it may take to answer that, in milliseconds. */
  readonly pingTimeoutMs: number
}

/** What the pool is told by its connections. */
export interface SessionOwner {
  /** There is room for another request. */
  onRoom(): void
  /** It takes no further requests. */
  onClosed(session: UpstreamSession): void
  onRetry(request: UpstreamRequest): void
}

/** Assumed until the upstream has said how many streams it takes. */
const STREAMS_BEFORE_SETTINGS = 100
/** Numbers of streams end at 2^31, and every request takes two (RFC 9113 §5.1.1). */
const MAX_REQUESTS = 1_000_000_000
/** What the upstream may send of all bodies before they are read, in bytes. */
const SESSION_WINDOW_BYTES = 8 * 1024 * 1024

const SETTINGS = {
  // Duplicates travel on as they came.
  strictSingleValueFields: false,
  maxHeaderListPairs: 1_024,
  // Above every limit on what callers send: past it the library would close the connection.
  maxSendHeaderBlockLength: 1024 * 1024,
  settings: { enablePush: false, initialWindowSize: 256 * 1024, maxHeaderListSize: 64 * 1024 },
} as const

/** One connection to an upstream that speaks HTTP/2: carries many requests at a time. */
export class UpstreamSession implements CarriageOwner {
  readonly options: SessionOptions
  readonly #owner: SessionOwner
  readonly #session: ClientHttp2Session
  readonly #carriages = new Set<Http2Carriage>()
  readonly #connectTimer: NodeJS.Timeout
  #connected = false
  #limit = STREAMS_BEFORE_SETTINGS
  #sent = 0
  /** When something last came, and when the last request was done, by `performance.now()`. */
  #activeMs = performance.now()
  #pingedMs: number | undefined = undefined
  failure: CarriageOwner['failure'] = undefined

  constructor(options: SessionOptions, owner: SessionOwner) {
    this.options = options
    this.#owner = owner
    const socket = options.dial.open()
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (!this.#connected) this.failure ??= { code: 'upstream_unreachable', cause: error.code ?? error.name }
    })
    socket.once('secureConnect', () => {
      // Whoever has not agreed on HTTP/2 would not understand a word.
      if ((socket as TLSSocket).alpnProtocol !== 'h2') this.#end('upstream_invalid_response', 'no HTTP/2 by ALPN')
    })
    const session = connectHttp2(`${options.dial.scheme}://upstream`, { ...SETTINGS, createConnection: () => socket })
    this.#session = session
    this.#connectTimer = setTimeout(() => this.#end('upstream_timeout', 'connect'), options.connectTimeoutMs)
    session.on('connect', () => {
      this.#connected = true
      clearTimeout(this.#connectTimer)
      if (session.destroyed) return
      session.setLocalWindowSize(SESSION_WINDOW_BYTES)
    })
    session.on('remoteSettings', ({ maxConcurrentStreams = STREAMS_BEFORE_SETTINGS }) => {
      this.#limit = maxConcurrentStreams
      owner.onRoom()
    })
    session.on('goaway', () => owner.onClosed(this))
    session.on('error', ignore)
    session.on('close', () => {
      clearTimeout(this.#connectTimer)
      owner.onClosed(this)
    })
  }

  /** Whether another request may be sent on it. */
  get hasRoom(): boolean {
    const { closed, destroyed } = this.#session
    return !closed && !destroyed && this.#carriages.size < this.#limit
  }

  /** Whether it is gone. */
  get isOver(): boolean {
    return this.#session.destroyed
  }

  get used(): boolean {
    return this.#sent > 1
  }

  /** @param first - false for a request that is sent once more */
  carry(request: UpstreamRequest, first: boolean): void {
    this.#sent += 1
    if (this.#carriages.size === 0) this.#activeMs = performance.now()
    this.#carriages.add(new Http2Carriage(this.#session, request, this, first))
    if (this.#sent < MAX_REQUESTS) return
    this.#session.close()
    this.#owner.onClosed(this)
  }

  /** Looks after deadlines, silence and idleness; to be called now and then. */
  check(nowMs: number, idleMs: number): void {
    for (const carriage of this.#carriages) carriage.checkDeadline(nowMs)
    if (this.#carriages.size === 0) {
      if (this.#connected && nowMs - this.#activeMs >= idleMs) this.#session.close()
    } else if (this.#pingedMs !== undefined) {
      if (nowMs - this.#pingedMs >= this.options.pingTimeoutMs) this.#end('upstream_timeout', 'ping')
    } else if (this.#connected && nowMs - this.#activeMs >= this.options.pingAfterMs) this.#ping(nowMs)
  }

  /** Closes the connection; requests under way fail. */
  close(): void {
    this.#end('upstream_reset', 'shutdown')
  }

  onActivity(): void {
    this.#activeMs = performance.now()
  }

  onRetry(request: UpstreamRequest): void {
    this.#owner.onRetry(request)
  }

  onClosed(carriage: Http2Carriage): void {
    this.#carriages.delete(carriage)
    this.#activeMs = performance.now()
    if (this.hasRoom) this.#owner.onRoom()
  }

  #ping(nowMs: number): void {
    this.#pingedMs = nowMs
    this.#session.ping(() => {
      this.#pingedMs = undefined
      this.onActivity()
    })
  }

  #end(code: UpstreamCode, cause: string): void {
    this.failure ??= { code, cause }
    clearTimeout(this.#connectTimer)
    this.#session.destroy()
  }
}

function ignore(): void {}
