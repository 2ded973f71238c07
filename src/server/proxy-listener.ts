import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls'
import { bind, type ListenAddress } from './bind.ts'
import type { CallerHandler } from './caller.ts'
import { createHttp1Connections, type Http1Options } from './http1.ts'
import { createHttp2Connections } from './http2.ts'
import type { Listener, ListenerLimits } from './listener.ts'
import { cutIdleReaders } from './readers.ts'
import type { TlsSource } from './tls.ts'

export interface ProxyListenerOptions extends Pick<Http1Options, 'handle' | 'onUnreadable' | 'newRequestId'> {
  readonly address: ListenAddress
  readonly limits: ListenerLimits & {
    /** Most requests at a time on one connection of HTTP/2. */
    readonly concurrentStreams: number
  }
  readonly handle: CallerHandler
  /** A connection past the limit was closed unanswered. */
  readonly onDropped: () => void
  /** A caller did not get through the TLS handshake. */
  readonly onHandshakeFailed: (reason: string, peer: string) => void
  /** Speaks TLS; absent for connections in the clear. */
  readonly tls: TlsSource | undefined
}

/** How often idle connections are swept while the listener ends, in milliseconds. */
const SWEEP_INTERVAL_MS = 50
/** How long a TLS handshake may take, in milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 10_000
const SOCKET_OPTIONS = {
  allowHalfOpen: true,
  noDelay: true,
  // Callers of streams of events and of WebSockets may be silent for ever; one that has vanished must not.
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
}

/**
 * Creates the listener for traffic: HTTP/1.1 and HTTP/2 on one port, by ALPN over TLS and by prior knowledge in the clear.
 * Every limit is explicit; whatever is answered here by itself is logged and counted.
 */
export function createProxyListener(options: ProxyListenerOptions): Listener {
  const { limits, handle, tls, onUnreadable, newRequestId } = options
  const sockets = new Set<Socket>()
  const http2 = createHttp2Connections({
    limits,
    handle,
    onUnreadable: (code, reason, peer) => onUnreadable(code, reason, peer, newRequestId()),
  })
  const acceptHttp2 = tls === undefined ? (socket: Socket) => http2.accept(socket) : undefined
  const http1 = createHttp1Connections({ limits, handle, onUnreadable, newRequestId, acceptHttp2 })

  const keep = (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  }
  const server =
    tls === undefined
      ? createServer(SOCKET_OPTIONS, (socket) => http1.accept(socket))
      : createSecureServer(tls, options, (socket, isHttp2) => {
          keep(socket)
          if (isHttp2) http2.accept(socket)
          else http1.accept(socket)
        })
  // With TLS, the connection below it: there is nothing else as long as the handshake lasts.
  server.on('connection', keep)
  server.maxConnections = limits.connections
  server.on('drop', options.onDropped)
  server.on('close', cutIdleReaders(sockets, limits.sendTimeoutMs))

  const closeIdle = () => {
    http1.closeIdle()
    http2.sweep()
  }
  return {
    start: () => bind(server, options.address),

    drain() {
      http1.drain()
      http2.drain()
    },

    stop: (graceMs) => {
      http1.drain()
      return new Promise((resolve) => {
        let cut = 0
        // Idle connections appear as requests finish, so one sweep is not enough.
        const sweep = setInterval(closeIdle, SWEEP_INTERVAL_MS)
        const deadline = setTimeout(() => {
          cut = http1.cut() + http2.cut()
          // Those in the middle of a TLS handshake, too.
          for (const socket of sockets) socket.destroy()
        }, graceMs)
        server.close(() => {
          clearInterval(sweep)
          clearTimeout(deadline)
          http1.stop()
          resolve(cut)
        })
        closeIdle()
        http2.close()
      })
    },
  }
}

/** TLS: ALPN says which protocol it is, and new certificates are for new connections alone. */
function createSecureServer(
  tls: TlsSource,
  { onHandshakeFailed }: ProxyListenerOptions,
  accept: (socket: Socket, isHttp2: boolean) => void,
): Server {
  const server: TlsServer = createTlsServer(
    { ...SOCKET_OPTIONS, ...tls.options, handshakeTimeout: HANDSHAKE_TIMEOUT_MS },
    (socket) => accept(socket, socket.alpnProtocol === 'h2'),
  )
  server.on('tlsClientError', ({ code }: NodeJS.ErrnoException, socket) => {
    onHandshakeFailed(code ?? 'unknown', socket.remoteAddress ?? '')
    socket.destroy()
  })
  tls.watch((next) => server.setSecureContext(next))
  server.on('close', () => tls.stop())
  return server
}
