import type { Socket } from 'node:net'
import { refusal, UpstreamError, type CodedError, type UpstreamCode } from '../errors.ts'
import { keepResponseFields } from '../http/headers.ts'
import { MessageFault } from '../http/field-line.ts'
import { readResponseHead, type ResponseHead } from '../http/response-head.ts'
import { closeFrame, FrameBoundary } from '../http/websocket.ts'
import type { Tunnel as CallerSide } from '../server/caller.ts'
import type { Clock } from '../util/clock.ts'
import { toFailureCode } from './connection.ts'
import type { Dial } from './dial.ts'
import type { Exchange } from './exchange.ts'
import { ResponseReader, type Head } from './response-reader.ts'

export interface TunnelOptions {
  readonly dial: Dial
  /** From the call to the head of the response, in milliseconds. */
  readonly responseTimeoutMs: number
  /** Whether a WebSocket ends with the token that opened it. */
  readonly closeAtTokenExpiry: boolean
  /** Whether there are any; a request for one is refused otherwise. */
  readonly enabled: boolean
  /** Where those that are open are kept. */
  readonly open: OpenTunnels
  readonly clock: Clock
}

/** Those that are open, to be closed by whoever ends the process. */
export type OpenTunnels = Set<{ close(code: 1001 | 1008): void }>

/** Asks the upstream to switch protocols, and if it does, joins both connections. */
export type Tunnels = (head: string, exchange: Exchange, onFailure: FailureHandler) => void

type FailureHandler = (exchange: Exchange, error: CodedError) => void

const MAX_HEAD_BYTES = 64 * 1024
/** After a Close frame, for the peer to answer it. */
const CLOSE_GRACE_MS = 2_000
/**
 * How often, and how precisely in the end, it is looked whether a token has expired. Node keeps a list for each length of a
 * timer, until the time is over: a length of its own for each WebSocket would leave a list behind for the life of its token.
 */
const EXPIRY_CHECK_MS = 60_000
const EXPIRY_STEP_MS = 100

/** Creates the door for WebSockets (RFC 6455): each has a connection of its own to the upstream. */
export function createTunnels(options: TunnelOptions): Tunnels {
  return (head, exchange, onFailure) => {
    if (!options.enabled) return onFailure(exchange, refusal('upgrade_not_supported'))
    const tunnel = new Tunnel(options, exchange, (error) => onFailure(exchange, error))
    options.open.add(tunnel)
    exchange.response.on('close', () => options.open.delete(tunnel))
    exchange.carrier = tunnel
    tunnel.start(head)
  }
}

class Tunnel {
  readonly #options: TunnelOptions
  readonly #exchange: Exchange
  readonly #onFailure: (error: CodedError) => void
  readonly #caller: CallerSide
  readonly #upstream: Socket
  readonly #timers: NodeJS.Timeout[] = []
  #expiryTimer: NodeJS.Timeout | undefined = undefined
  readonly #toCaller = new FrameBoundary()
  #connected = false
  #text = ''
  #settled = false

  constructor(options: TunnelOptions, exchange: Exchange, onFailure: (error: CodedError) => void) {
    this.#options = options
    this.#exchange = exchange
    this.#onFailure = onFailure
    this.#caller = exchange.request.tunnel as CallerSide
    const upstream = options.dial.open()
    this.#upstream = upstream
    upstream.once(options.dial.ready, () => (this.#connected = true))
    upstream.on('error', (error: NodeJS.ErrnoException) => this.#fail(toFailureCode(error), error.code ?? error.name))
    upstream.on('close', () => this.#fail('upstream_reset', 'closed'))
    this.#caller.socket.on('close', () => this.cancel())
  }

  start(head: string): void {
    const timeout = () => this.#fail('upstream_timeout', 'response')
    this.#timers.push(setTimeout(timeout, this.#options.responseTimeoutMs))
    this.#upstream.on('data', this.#readHead)
    this.#upstream.write(head, 'latin1')
  }

  /** The caller is gone. */
  cancel(): void {
    this.#settled = true
    this.#clear()
    this.#upstream.destroy()
  }

  /** Ends an open WebSocket with a reason; one that is in the middle of a frame just ends. */
  close(code: 1001 | 1008): void {
    if (!this.#exchange.tunnelled) return
    const { socket } = this.#caller
    this.#upstream.unpipe(socket)
    this.#upstream.resume()
    if (this.#toCaller.atBoundary) socket.write(closeFrame(code))
    socket.end()
    this.#timers.push(setTimeout(() => socket.destroy(), CLOSE_GRACE_MS))
  }

  readonly #readHead = (chunk: Buffer): void => {
    this.#text += chunk.toString('latin1')
    const end = this.#text.indexOf('\r\n\r\n')
    if (end === -1 && this.#text.length < MAX_HEAD_BYTES) return
    try {
      if (end === -1) throw new MessageFault('head too large')
      this.#take(readResponseHead(this.#text.slice(0, end + 2)), end + 4)
    } catch (error) {
      if (!(error instanceof MessageFault)) throw error
      this.#fail('upstream_invalid_response', error.message)
    }
  }

  #take(head: ResponseHead, length: number): void {
    this.#upstream.off('data', this.#readHead)
    this.#clear()
    const rest = Buffer.from(this.#text.slice(length), 'latin1')
    if (head.status !== 101) return this.#passOn(Buffer.from(this.#text, 'latin1'))
    const upgrade = head.fields.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === 'upgrade')
    if (head.fields[upgrade + 1]?.toLowerCase() !== 'websocket') throw new MessageFault('another protocol')
    this.#splice(head.fields, rest)
  }

  /** The upstream would rather not: its answer is an ordinary one. */
  #passOn(received: Buffer): void {
    const { response } = this.#exchange
    const reader = new ResponseReader()
    reader.expect('GET', {
      onHead: ({ status, fields }: Head) => void response.writeHead(status, keepResponseFields(fields, status)),
      onData: (chunk, last) => {
        if (last) response.end(Buffer.from(chunk))
        else if (!response.write(Buffer.from(chunk))) this.#awaitCaller()
      },
      onEnd: () => void response.end(),
    })
    const read = (chunk: Buffer) => {
      reader.read(chunk)
      this.#settled ||= !reader.busy
    }
    this.#upstream.on('data', (chunk: Buffer) => {
      try {
        read(chunk)
      } catch {
        this.#fail('upstream_invalid_response', 'body')
      }
    })
    this.#upstream.on('end', () => {
      if (reader.end()) this.#settled = true
    })
    read(received)
  }

  /** Reads no more of the response than the caller takes. */
  #awaitCaller(): void {
    if (this.#upstream.isPaused()) return
    this.#upstream.pause()
    // The socket's own: nobody passes it on to the response any more.
    this.#caller.socket.once('drain', () => this.#upstream.resume())
  }

  #splice(fields: readonly string[], rest: Buffer): void {
    const { socket, early } = this.#caller
    const upstream = this.#upstream
    this.#settled = true
    this.#exchange.tunnelled = true
    let head = 'HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n'
    const kept = keepResponseFields(fields, 101)
    for (let i = 0; i < kept.length; i += 2) head += `${kept[i] as string}: ${kept[i + 1] as string}\r\n`
    socket.write(`${head}\r\n`, 'latin1')
    upstream.on('data', (chunk: Buffer) => this.#toCaller.feed(chunk))
    if (rest.length > 0) {
      this.#toCaller.feed(rest)
      socket.write(rest)
    }
    if (early.length > 0) upstream.write(early)
    socket.setTimeout(0)
    upstream.on('close', () => socket.end())
    upstream.pipe(socket)
    socket.pipe(upstream)
    this.#limitToToken()
  }

  /** A connection that outlives the token that opened it would be a way around its end. */
  #limitToToken(): void {
    const { token } = this.#exchange
    const exp = token?.claims['exp']
    if (!this.#options.closeAtTokenExpiry || token === undefined || typeof exp !== 'number') return
    const endMs = (exp + token.issuer.expectation.clockToleranceSeconds) * 1000
    const check = () => {
      const left = endMs - this.#options.clock.now()
      if (left <= 0) return this.close(1008)
      const waitMs = Math.min(EXPIRY_CHECK_MS, Math.ceil(left / EXPIRY_STEP_MS) * EXPIRY_STEP_MS)
      this.#expiryTimer = setTimeout(check, waitMs).unref()
    }
    check()
  }

  #clear(): void {
    clearTimeout(this.#expiryTimer)
    for (const timer of this.#timers.splice(0)) clearTimeout(timer)
  }

  #fail(code: UpstreamCode, cause: string): void {
    if (this.#settled) return
    this.#settled = true
    this.#clear()
    this.#upstream.destroy()
    const known = !this.#connected && code === 'upstream_reset' ? 'upstream_unreachable' : code
    this.#onFailure(new UpstreamError(known, { cause }))
  }
}
