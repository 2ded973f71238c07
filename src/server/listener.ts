import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { CodedError, RefusalCode } from '../errors.ts'
import { bind, type ListenAddress } from './bind.ts'
import { findHttp1Fault, isAbort, toRefusalCode } from './parse-error.ts'
import { CURRENT, leaveUnread, limitPipeline, type Connection } from './pipeline.ts'
import { toRawResponse } from './raw-response.ts'
import { cutIdleReaders } from './readers.ts'

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
  readonly newRequestId: () => string
  /** A connection past the limit was closed unanswered. */
  readonly onDropped: () => void
}

/** One listening socket. */
export interface Listener {
  /** Binds; resolves to the port, 0 for a Unix socket. Rejects with Node's error when that fails. */
  start(): Promise<number>
  /** From now on every response says `Connection: close`; connections are still accepted. */
  drain(): void
  /** Stops accepting, lets requests in flight finish for at most `graceMs`, then cuts them. Resolves to how many were cut. */
  stop(graceMs: number): Promise<number>
}

/** How often timeouts are looked after and idle connections swept, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000
const SWEEP_INTERVAL_MS = 50
/** How long a peer may take to close a connection on which everything is said, in milliseconds. */
const LINGER_MS = 1_000

/**
 * Creates a listener of HTTP/1.1 in the clear by node:http, for what is not traffic: ops and helper. Every limit is explicit;
 * what Node would answer by itself is answered here, in the form of every other refusal.
 */
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
  }

  const refuse = (socket: Duplex, code: RefusalCode) => {
    const busy = (socket as Connection)[CURRENT]
    if (!socket.writable || (busy !== undefined && !busy.writableFinished)) socket.destroy()
    else {
      socket.end(toRawResponse(code, options.newRequestId()))
      linger(socket)
    }
  }

  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      // The whole request may take as long as it likes: a large upload over a slow line is not an attack.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      insecureHTTPParser: false,
      // The helper checks Host itself, and for ops it means nothing.
      requireHostHeader: false,
      noDelay: true,
    },
    (request, response) => accept(request, response, false),
  )
  server.on('connection', (socket: Connection) => {
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
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy())
    refuse(socket, 'method_not_supported')
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (isAbort(error, (socket as Connection)[CURRENT])) socket.destroy()
    else refuse(socket, toRefusalCode(error.code))
  })

  return {
    start: () => bind(server, options.address),

    drain() {
      draining = true
      // Those whose head has left have told otherwise, and what comes behind them is still served.
      for (const response of responsesInFlight()) if (!response.headersSent) response.shouldKeepAlive = false
    },

    stop: (graceMs) => {
      draining = true
      let cut = 0
      return new Promise((resolve) => {
        // Idle connections appear as requests finish, so one sweep is not enough.
        const sweep = setInterval(closeIdle, SWEEP_INTERVAL_MS)
        const deadline = setTimeout(() => {
          cut = responsesInFlight().length
          server.closeAllConnections()
        }, graceMs)
        server.close(() => {
          clearInterval(sweep)
          clearTimeout(deadline)
          resolve(cut)
        })
        closeIdle()
      })
    },
  }
}

/** The peer may read its answer, but not keep the connection: closed at once, it could lose what it has not read yet. */
function linger(socket: Duplex): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.on('close', () => clearTimeout(timer))
  socket.resume()
}
