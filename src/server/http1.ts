import type { Socket } from 'node:net'
import type { RefusalCode } from '../errors.ts'
import type { CallerHandler } from './caller.ts'
import { Http1Connection, type Http1Limits, type Http1Owner } from './http1-connection.ts'
import { toRawResponse } from './raw-response.ts'

export interface Http1Options {
  readonly limits: Http1Limits
  readonly handle: CallerHandler
  /** A request that never reached the handler, since its head could not be read. */
  readonly onUnreadable: (code: RefusalCode, reason: string, peer: string, requestId: string) => void
  readonly newRequestId: () => string
  /** Takes the connections that begin with the preface of HTTP/2. */
  readonly acceptHttp2: ((socket: Socket) => void) | undefined
}

/** The connections that speak HTTP/1.1. They are accepted by somebody else, whether in the clear or over TLS. */
export interface Http1Connections {
  /** Takes over a connection, of which nothing was read. */
  accept(socket: Socket): void
  /** From now on every response says `Connection: close`. Those whose head has left have told otherwise, and keep their word. */
  drain(): void
  /** Lets go of connections that carry nothing. */
  closeIdle(): void
  /** Closes everything. @returns how many requests were cut */
  cut(): number
  /** Ends the watch over what takes too long. */
  stop(): void
}

/** How often it is looked what takes too long, in milliseconds. */
const CHECK_INTERVAL_MS = 500

/** Creates the server side of HTTP/1.1. */
export function createHttp1Connections(options: Http1Options): Http1Connections {
  const { limits, handle, newRequestId } = options
  const connections = new Set<Http1Connection>()
  const seconds = Math.max(1, Math.floor(limits.keepAliveTimeoutMs / 1000))
  const owner: Http1Owner & { draining: boolean } = {
    limits,
    keepAliveFields: `Connection: keep-alive\r\nKeep-Alive: timeout=${seconds}\r\n`,
    draining: false,
    handle: (call, expectsContinue, fault) => handle(call, call, expectsContinue, fault),
    refuse(code, reason, peer) {
      const requestId = newRequestId()
      options.onUnreadable(code, reason, peer, requestId)
      return toRawResponse(code, requestId)
    },
    acceptHttp2: options.acceptHttp2,
    onClosed: (connection) => connections.delete(connection),
  }

  const check = setInterval(() => {
    const now = performance.now()
    for (const connection of connections) connection.checkTime(now)
  }, CHECK_INTERVAL_MS).unref()

  return {
    accept: (socket) => void connections.add(new Http1Connection(socket, owner)),
    drain() {
      owner.draining = true
      for (const { call } of connections) if (call !== undefined && !call.headersSent) call.shouldKeepAlive = false
    },
    closeIdle() {
      for (const { idle, socket } of connections) if (idle) socket.destroy()
    },
    cut() {
      let requests = 0
      for (const { call, socket } of connections) {
        if (call !== undefined) requests += 1
        socket.destroy()
      }
      return requests
    },
    stop: () => clearInterval(check),
  }
}
