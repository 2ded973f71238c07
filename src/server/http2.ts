import { createServer, type Http2Session, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { RefusalCode } from '../errors.ts'
import { FIELD_OVERHEAD_BYTES, readHttp2Request } from '../http/http2-request.ts'
import { findField } from '../http/headers.ts'
import type { CallerHandler } from './caller.ts'
import { Http2Call } from './http2-call.ts'

export interface Http2Limits {
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
const IDLE_CHECK_MS = 500
/** How long a peer may take to close a connection on which everything is said, in milliseconds. */
const LINGER_MS = 500
/**
 * A GOAWAY that announces the end and refuses nothing yet: no stream is too late for it (RFC 9113 §6.8). It is written past
 * the library, which from its own GOAWAY on, whatever that says, drops new streams without a word.
 */
const NOTICE = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])

/** What is known of one connection. */
interface Peer {
  readonly socket: Socket
  /** Kept, since a closed socket does not know it any more. */
  readonly address: string
  readonly session: ServerHttp2Session
  /** Requests in flight. */
  open: number
  /** Since when there are none, by `performance.now()`. */
  idleSinceMs: number
  /** Whether it was asked to open no further streams. */
  asked: boolean
  /** When everything had been sent, by `performance.now()`. */
  doneMs: number | undefined
}

const PEER = Symbol('peer')
type Session = Http2Session & { [PEER]?: Peer }

/** Creates the server side of HTTP/2: every stream goes to the same handler as a request of HTTP/1.1. */
export function createHttp2Connections({ limits, handle, onUnreadable }: Http2Options): Http2Connections {
  const peers = new Set<Peer>()
  let draining = false
  let accepting: Socket | undefined

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
    const socket = accepting as Socket
    const peer: Peer = {
      socket,
      address: socket.remoteAddress ?? '',
      session,
      open: 0,
      idleSinceMs: performance.now(),
      asked: false,
      doneMs: undefined,
    }
    session[PEER] = peer
    peers.add(peer)
    session.on('close', () => peers.delete(peer))
    session.setLocalWindowSize(WINDOW_BYTES * 8)
  })
  server.on('stream', (stream, _headers, _flags, raw) => {
    // First of all: a stream that was reset within the same bytes that opened it has its error still before it.
    stream.on('error', ignore)
    const peer = (stream.session as Session | undefined)?.[PEER]
    if (peer === undefined) return
    peer.open += 1
    stream.on('close', () => {
      peer.open -= 1
      peer.idleSinceMs = performance.now()
    })
    if (draining) ask(peer)
    serve(stream, raw, peer.socket)
  })
  server.on('sessionError', (error: NodeJS.ErrnoException, session: Session) => {
    if (isOwnFault(error)) onUnreadable('frame_invalid', error.code ?? error.name, session[PEER]?.address ?? '')
  })

  // Not by the timeout of the session: the library forgets to clear it when a session ends, and keeps the session with it.
  const idleCheck = setInterval(() => {
    const limitMs = performance.now() - limits.keepAliveTimeoutMs
    // A GOAWAY, and then the connection, whether or not the peer closes it.
    for (const { session, open, idleSinceMs } of peers) if (open === 0 && idleSinceMs <= limitMs) session.destroy()
  }, IDLE_CHECK_MS).unref()

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
      accepting = socket
      server.emit('connection', socket)
      accepting = undefined
    },
    drain() {
      draining = true
      for (const peer of peers) ask(peer)
    },
    close() {
      draining = true
      clearInterval(idleCheck)
      for (const { session } of peers) session.close()
    },
    sweep() {
      const now = performance.now()
      for (const peer of peers) {
        if (!peer.session.destroyed || !peer.socket.writableFinished) continue
        peer.doneMs ??= now
        if (now - peer.doneMs >= LINGER_MS) peer.socket.destroy()
      }
    },
    cut() {
      let streams = 0
      for (const { session, socket, open } of peers) {
        streams += open
        session.destroy()
        socket.destroy()
      }
      return streams
    },
  }
}

function ask(peer: Peer): void {
  const { socket, session } = peer
  // Between the records of TLS nobody may write but the library: there, the end comes without a notice.
  if (peer.asked || session.closed || !socket.writable || socket instanceof TLSSocket) return
  peer.asked = true
  socket.write(NOTICE)
}

/** Streams that fail are seen by their end, connections that fail by their last error. */
function ignore(): void {}

/** Whether the peer broke a rule; not that its connection broke, nor that it told us of an error of ours. */
function isOwnFault({ code }: NodeJS.ErrnoException): boolean {
  return code !== 'ECONNRESET' && code !== 'EPIPE' && code !== 'ERR_HTTP2_SESSION_ERROR'
}
