import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Server as TlsServer } from 'node:tls'
import type { CodedError, RefusalCode } from '../errors.ts'
import { findHttp1Fault } from '../http/http1-request.ts'
import { toProblemResponse } from '../http/problem.ts'
import { bind, type ListenAddress } from './bind.ts'
import type { CallerHandler } from './caller.ts'
import { createHttp2Connections, type Http2Connections } from './http2.ts'
import { isAbort, toRefusalCode } from './parse-error.ts'
import { CURRENT, leaveUnread, limitPipeline, whenSent, type Connection } from './pipeline.ts'
import { divertHttp2, type Undecided } from './preface.ts'
import { cutIdleReaders } from './readers.ts'
import type { TlsSource } from './tls.ts'
import { linger, prepareUpgrade } from './upgrade.ts'

export type { ListenAddress } from './bind.ts'

export interface ListenerLimits {
  /** Largest request header in bytes. */
  readonly headerBytes: number
  /** Time to send the whole request header, in milliseconds. */
  readonly headersTimeoutMs: number
  /** How long an idle connection is kept, in milliseconds. */
  readonly keepAliveTimeoutMs: number
  /** How long a caller may take nothing of its response, in milliseconds. */
  readonly sendTimeoutMs: number
  /** Most connections; further ones are closed at once. */
  readonly connections: number
}

/**
 * Handles one request. `expectsContinue`: the caller waits for `100 Continue` before it sends its body. `fault`: why it must
 * be refused whatever it asks for; the connection ends with its answer.
 */
export type RequestHandler = (
  request: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
  fault?: CodedError,
) => void

export interface ListenerOptions {
  readonly address: ListenAddress
  readonly limits: ListenerLimits
  readonly handle: RequestHandler
  /** A request that never reached the handler: its header could not be parsed, or it was a CONNECT. */
  readonly onUnreadable: (code: RefusalCode, reason: string, peer: string, requestId: string) => void
  readonly newRequestId: () => string
  /** A connection past the limit was closed unanswered. */
  readonly onDropped: () => void
  /** A caller did not get through the TLS handshake. */
  readonly onHandshakeFailed: (reason: string, peer: string) => void
  /** Speaks TLS; absent for connections in the clear. */
  readonly tls?: TlsSource | undefined
  /** Hands requests that ask to switch protocols to `handle`, with their `tunnel`. */
  readonly upgrades?: boolean
  /** Serves HTTP/2, too; absent for HTTP/1.1 alone. */
  readonly http2?: {
    readonly handle: CallerHandler
    /** Most requests at a time on one connection. */
    readonly concurrentStreams: number
  }
}

/** One listening socket. */
export interface Listener {
  /** Binds; resolves to the port, 0 for a Unix socket. Rejects with Node's error when that fails. */
  start(): Promise<number>
  /** From now on every response says `Connection: close`; connections are still accepted. */
  drain(): void
  /** Whether responses must say `Connection: close`. */
  isDraining(): boolean
  /** Stops accepting, lets requests in flight finish for at most `graceMs`, then cuts them. Resolves to how many were cut. */
  stop(graceMs: number): Promise<number>
}

/** How often timeouts are looked after and idle connections swept, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000
const SWEEP_INTERVAL_MS = 50
/** After so much silence the system asks whether the peer is still there, in milliseconds. */
const KEEP_ALIVE_PROBE_MS = 60_000

/** Creates a listener. Every limit is explicit; what Node would answer by itself is answered, logged and counted here. */
export function createListener(options: ListenerOptions): Listener {
  const { limits, handle } = options
  let draining = false
  const connections = new Set<Connection>()

  const accept = (request: IncomingMessage, response: ServerResponse, expectsContinue: boolean) => {
    const connection: Connection = request.socket
    if (connection[CURRENT]?.shouldKeepAlive === false) return leaveUnread(connection)
    const fault = findHttp1Fault(request) ?? limitPipeline(connection, response)
    connection[CURRENT] = response
    if (draining || fault !== undefined) response.shouldKeepAlive = false
    handle(request, response, expectsContinue, fault)
  }

  const responsesInFlight = () =>
    [...connections].flatMap(({ [CURRENT]: response }) => (response === undefined || response.closed ? [] : [response]))

  const closeIdle = () => {
    server.closeIdleConnections()
    // Node counts a connection that was opened ahead of need, and has not sent a byte, as busy.
    for (const connection of connections) {
      if (connection[CURRENT] === undefined && connection.bytesRead === 0) connection.destroy()
    }
    http2?.sweep()
  }

  const refuse = (socket: Duplex, code: RefusalCode, reason: string) => {
    const busy = (socket as Connection)[CURRENT]
    const requestId = options.newRequestId()
    options.onUnreadable(code, reason, (socket as Socket).remoteAddress ?? '', requestId)
    if (!socket.writable || (busy !== undefined && !busy.writableFinished)) socket.destroy()
    else {
      socket.end(toRawResponse(code, requestId))
      linger(socket)
    }
  }

  const server = createHttp1Server(
    options.tls,
    {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      // The whole request may take as long as it likes: a large upload over a slow line is not an attack.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      insecureHTTPParser: false,
      // The gate checks Host, so that this refusal is logged and counted like every other.
      requireHostHeader: false,
      noDelay: true,
      // Callers of streams of events and of WebSockets may be silent for ever; one that has vanished must not.
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_PROBE_MS,
    },
    (request, response) => accept(request, response, false),
  )
  server.on(options.tls === undefined ? 'connection' : 'secureConnection', (socket: Connection) => {
    connections.add(socket)
    socket.on('close', () => connections.delete(socket))
  })
  server.on('close', cutIdleReaders(connections, limits.sendTimeoutMs))
  server.maxConnections = limits.connections
  server.on('drop', options.onDropped)
  // Fields past a maximum would vanish unseen; the limit is on bytes instead.
  server.maxHeadersCount = 0
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => accept(request, response, true))
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) =>
    accept(request, response, false),
  )
  if (options.upgrades)
    server.on('upgrade', (request: IncomingMessage, socket: Connection, early: Buffer) => {
      const response = prepareUpgrade(request, socket)
      whenSent(socket[CURRENT], () => {
        if (!socket.writable) return
        response.assignSocket(socket)
        accept(Object.assign(request, { tunnel: { socket, early } }), response, false)
      })
    })
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy())
    refuse(socket, 'method_not_supported', 'CONNECT')
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (isAbort(error, (socket as Connection)[CURRENT])) socket.destroy()
    else refuse(socket, toRefusalCode(error.code), error.code ?? 'unknown')
  })

  const http2 = createHttp2(options)
  const undecided = http2 && options.tls === undefined ? divert(server, http2, refuse, limits) : undefined
  if (options.tls !== undefined) secure(server as unknown as TlsServer, options.tls, http2, options)

  return {
    start: () => bind(server, options.address),

    drain() {
      draining = true
      // Those whose head has left have told otherwise, and what comes behind them is still served.
      for (const response of responsesInFlight()) if (!response.headersSent) response.shouldKeepAlive = false
      http2?.drain()
    },

    isDraining: () => draining,

    stop: (graceMs) => {
      draining = true
      let cut = 0
      return new Promise((resolve) => {
        // Idle connections appear as requests finish, so one sweep is not enough.
        const sweep = setInterval(closeIdle, SWEEP_INTERVAL_MS)
        const deadline = setTimeout(() => {
          cut = responsesInFlight().length + (http2?.cut() ?? 0)
          server.closeAllConnections()
          // The library does not count connections that switched protocols.
          for (const connection of connections) connection.destroy()
        }, graceMs)
        server.close(() => {
          clearInterval(sweep)
          clearTimeout(deadline)
          resolve(cut)
        })
        closeIdle()
        undecided?.close()
        http2?.close()
      })
    },
  }
}

/** The connections that speak HTTP/2. Whoever accepts one in another way, such as TLS with ALPN, calls their `accept`. */
function createHttp2({ http2, limits, onUnreadable, newRequestId }: ListenerOptions): Http2Connections | undefined {
  if (http2 === undefined) return undefined
  return createHttp2Connections({
    limits: {
      headerBytes: limits.headerBytes,
      keepAliveTimeoutMs: limits.keepAliveTimeoutMs,
      sendTimeoutMs: limits.sendTimeoutMs,
      concurrentStreams: http2.concurrentStreams,
    },
    handle: http2.handle,
    onUnreadable: (code, reason, peer) => onUnreadable(code, reason, peer, newRequestId()),
  })
}

function createHttp1Server(
  tls: TlsSource | undefined,
  settings: ServerOptions,
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  if (tls === undefined) return createServer(settings, onRequest)
  const all = { ...settings, ...tls.options, handshakeTimeout: HANDSHAKE_TIMEOUT_MS }
  // The same in all that is used here.
  return createHttpsServer(all, onRequest)
}

/** How long a TLS handshake may take, in milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 10_000

/** TLS: ALPN says which protocol it is, and new certificates are for new connections alone. */
function secure(
  server: TlsServer,
  tls: TlsSource,
  http2: Http2Connections | undefined,
  { onHandshakeFailed }: ListenerOptions,
): void {
  const acceptHttp1 = server.listeners('secureConnection')[0] as (socket: Socket) => void
  server.removeListener('secureConnection', acceptHttp1)
  server.on('secureConnection', (socket) => {
    if (socket.alpnProtocol === 'h2' && http2 !== undefined) http2.accept(socket)
    else acceptHttp1.call(server, socket)
  })
  server.on('tlsClientError', ({ code }: NodeJS.ErrnoException, socket) => {
    onHandshakeFailed(code ?? 'unknown', socket.remoteAddress ?? '')
    socket.destroy()
  })
  tls.watch((next) => server.setSecureContext(next))
  server.on('close', () => tls.stop())
}

type Refuse = (socket: Duplex, code: RefusalCode, reason: string) => void

/** HTTP/2 by prior knowledge, on the port of HTTP/1.1. */
function divert(server: Server, http2: Http2Connections, refuse: Refuse, limits: ListenerLimits): Undecided {
  return divertHttp2(server, {
    acceptHttp2: (socket) => http2.accept(socket),
    timeoutMs: limits.headersTimeoutMs,
    onSilent: (socket) => refuse(socket, 'request_timeout', 'silent'),
  })
}

function toRawResponse(code: RefusalCode, requestId: string): string {
  const { status, headers, body } = toProblemResponse(code, requestId)
  const lines = [`HTTP/1.1 ${status} Refused`]
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
  return `${lines.join('\r\n')}\r\nConnection: close\r\n\r\n${body}`
}
