import { createServer, type Http2Session, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import type { RefusalCode } from '../errors.ts'
import { FIELD_OVERHEAD_BYTES, readHttp2Request } from '../http/http2-request.ts'
import { findField } from '../http/headers.ts'
import type { CallerHandler } from './caller.ts'
import { Http2Call } from './http2-call.ts'
import { Http2Peer, type PeerTimes } from './http2-peer.ts'
import { Plaintext } from './plaintext.ts'

export interface Http2Limits extends Partial<PeerTimes> {
  /** Largest header of a request in bytes, 32 for each field included. */
  readonly headerBytes: number
  /** Most requests at a time on one connection. */
  readonly concurrentStreams: number
  /** How long a connection without requests is kept, in milliseconds. */
  readonly keepAliveTimeoutMs: number
  /** How long a peer may take nothing of one response, in milliseconds. */
  readonly sendTimeoutMs: number
}

export interface Http2Options {
  readonly limits: Http2Limits
  readonly handle: CallerHandler
  /** A connection was closed because of what its peer sent. */
  readonly onUnreadable: (code: RefusalCode, reason: string, peer: string) => void
}

/** The connections that speak HTTP/2. They are accepted by somebody else, whether in the clear or over TLS. */
export interface Http2Connections {
  /** Takes over a connection; what was read of it must have been put back. With TLS, ALPN must have chosen `h2`. */
  accept(socket: Socket): void
  /** Asks peers to open no further streams; those that are on their way are still served. */
  drain(): void
  /** Accepts no further streams; connections close as soon as those in flight are done. */
  close(): void
  /** While closing: lets go of connections that are done, but whose peers do not close them. */
  sweep(): void
  /** Closes everything. @returns how many streams were cut */
  cut(): number
}

/**
 * What node:http2 holds a peer to. A breach closes the connection.
 *
 * - A stream that is opened and reset at once costs the peer nothing and us a request (CVE-2023-44487): a thousand at once
 *   and two hundred a second are what busy gateways may need whose own callers give up.
 * - Frames that are well-formed but illegal are counted; the library's own thousand is more than any honest peer sends.
 * - CONTINUATION frames (CVE-2024-27316), and answers to PING and SETTINGS that the peer does not read (CVE-2019-9512 and
 *   -9515), are limited within the library.
 */
const PEER_LIMITS = {
  streamResetBurst: 1_000,
  streamResetRate: 200,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  maxSendHeaderBlockLength: 1024 * 1024,
  maxSettings: 32,
  maxOutstandingPings: 10,
  maxOutstandingSettings: 10,
} as const

/** Memory for one connection in megabytes: about what its streams may hold at once, which is a chunk of a body each. */
const MEMORY_MB = 10
const MEMORY_MB_PER_STREAM = 0.125
/** What a caller may send of one body before it is read, in bytes. More is faster over long lines, and costs memory. */
const WINDOW_BYTES = 128 * 1024
/** How often connections are looked at, in milliseconds. */
const CHECK_MS = 500
/**
 * Peers whose requests are silent are asked whether they are still there: streams of events and of gRPC have no other limit,
 * and TCP keep-alive finds neither a process that hangs nor the far side of a proxy.
 */
const PING_AFTER_MS = 2 * 60_000
/** As long as libraries of gRPC give each other. */
const PING_TIMEOUT_MS = 20_000

const PEER = Symbol('peer')
type Session = Http2Session & { [PEER]?: Http2Peer }

/** Creates the server side of HTTP/2: every stream goes to the same handler as a request of HTTP/1.1. */
export function createHttp2Connections({ limits, handle, onUnreadable }: Http2Options): Http2Connections {
  const peers = new Set<Http2Peer>()
  const times: PeerTimes = { pingAfterMs: PING_AFTER_MS, pingTimeoutMs: PING_TIMEOUT_MS, ...limits }
  let draining = false
  let accepting: { readonly socket: Socket; readonly transport: Duplex } | undefined

  const server = createServer({
    ...PEER_LIMITS,
    // An indexed field is a single byte on the wire. Twice as many as there is room for get an answer, more a reset.
    maxHeaderListPairs: Math.ceil((limits.headerBytes * 2) / FIELD_OVERHEAD_BYTES),
    maxSessionMemory: Math.ceil(MEMORY_MB + MEMORY_MB_PER_STREAM * limits.concurrentStreams),
    // On what is sent: duplicates travel on as they came.
    strictSingleValueFields: false,
    settings: {
      maxConcurrentStreams: limits.concurrentStreams,
      // Above our own limit, so that a header between the two gets an answer rather than a reset.
      maxHeaderListSize: limits.headerBytes * 2,
      initialWindowSize: WINDOW_BYTES,
      enableConnectProtocol: false,
    },
  })
  server.on('session', (session: ServerHttp2Session & Session) => {
    const { socket, transport } = accepting as NonNullable<typeof accepting>
    const peer = new Http2Peer(session, socket, transport)
    session[PEER] = peer
    peers.add(peer)
    // Whoever leaves takes the state of its connection along: first of all, before the library closes the session.
    for (const event of ['end', 'close']) socket.prependListener(event, () => peer.look())
    session.on('goaway', () => peer.look())
    session.on('close', () => {
      peers.delete(peer)
      report(peer.takeUnseen(), peer)
    })
    session.setLocalWindowSize(WINDOW_BYTES * 8)
  })
  server.on('stream', (stream, _headers, _flags, raw) => {
    // First of all: a stream that was reset within the same bytes that opened it has its error still before it.
    stream.on('error', ignore)
    const peer = (stream.session as Session | undefined)?.[PEER]
    if (peer === undefined) return
    peer.onStream(stream.id as number)
    stream.on('close', () => peer.onStreamClosed())
    if (draining) peer.ask()
    serve(stream, raw, peer.socket)
  })
  server.on('sessionError', (error: NodeJS.ErrnoException, session: Session) => {
    if (isOwnFault(error)) onUnreadable('frame_invalid', error.code ?? error.name, session[PEER]?.address ?? '')
  })

  const report = (unseen: string | undefined, { address }: Http2Peer) => {
    if (unseen !== undefined) onUnreadable('frame_invalid', `reset unseen: ${unseen}`, address)
  }

  // Not by the timeout of the session: the library forgets to clear it when a session ends, and keeps the session with it.
  const check = setInterval(() => {
    const now = performance.now()
    for (const peer of peers) {
      report(peer.check(now, times), peer)
    }
  }, CHECK_MS).unref()

  const serve = (stream: ServerHttp2Stream, raw: string[], socket: Socket) => {
    const head = readHttp2Request(raw, stream.endAfterHeaders, limits.headerBytes)
    const call = new Http2Call(stream, head, socket, limits.sendTimeoutMs)
    const { count, value } = findField(head.fields, 'expect')
    handle(call, call, count === 1 && value?.toLowerCase() === '100-continue', head.fault)
  }

  return {
    accept(socket) {
      // A server of HTTP/1.1 leaves it open when the peer closes its side, and this one would never learn of it.
      socket.allowHalfOpen = false
      const transport = socket instanceof TLSSocket ? new Plaintext(socket) : socket
      accepting = { socket, transport }
      server.emit('connection', transport)
      accepting = undefined
    },
    drain() {
      draining = true
      for (const peer of peers) peer.ask()
    },
    close() {
      draining = true
      clearInterval(check)
      for (const { session } of peers) session.close()
    },
    sweep() {
      const now = performance.now()
      for (const peer of peers) peer.sweep(now)
    },
    cut() {
      let streams = 0
      for (const peer of peers) {
        streams += peer.open
        peer.cut()
      }
      return streams
    },
  }
}

/** Streams that fail are seen by their end, connections that fail by their last error. */
function ignore(): void {}

/** Whether the peer broke a rule; not that its connection broke, nor that it told us of an error of ours. */
function isOwnFault({ code }: NodeJS.ErrnoException): boolean {
  return code !== undefined && /^ERR_(HTTP2|SSL)_/.test(code) && code !== 'ERR_HTTP2_SESSION_ERROR'
}
