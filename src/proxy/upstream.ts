import { UpstreamError } from '../errors.ts'
import { Connection, type ConnectionOptions, type UpstreamRequest } from './connection.ts'

export interface UpstreamOptions extends ConnectionOptions {
  /** Most connections to the upstream; further requests wait for one. */
  readonly connections: number
}

/** The backend behind this sidecar. Only proxy/forward.ts uses it, and that takes a Permit. */
export interface Upstream {
  /** Sends a request on a free connection, or as soon as there is one. Nothing of it can change where it goes. */
  dispatch(request: UpstreamRequest): void
  close(): void
}

/** A request for which there is no connection yet. */
interface Waiting {
  readonly request: UpstreamRequest
  readonly sinceMs: number
}

/** Below the five seconds after which many backends close an idle connection, so that we are the ones who close it. */
const KEEP_ALIVE_MS = 4_000
/** Before the moment a backend announced, by this much. */
const KEEP_ALIVE_MARGIN_MS = 1_000
const SWEEP_INTERVAL_MS = 250

/** Creates the pool of connections. Nothing is opened before the first request. */
export function createUpstream(options: UpstreamOptions): Upstream {
  const all = new Set<Connection>()
  const idle: Connection[] = []
  const waiting: Waiting[] = []
  let closed = false

  const owner = {
    onIdle(connection: Connection) {
      if (closed) return connection.close()
      const next = takeWaiting()
      if (next !== undefined) return connection.send(next)
      connection.idleSinceMs = performance.now()
      idle.push(connection)
    },
    onClosed(connection: Connection) {
      all.delete(connection)
      const at = idle.indexOf(connection)
      if (at !== -1) idle.splice(at, 1)
      if (waiting.length > 0 && all.size < options.connections) {
        const next = takeWaiting()
        if (next !== undefined) open(next)
      }
    },
    onStale(request: UpstreamRequest) {
      if (all.size < options.connections) open(request)
      else waiting.unshift({ request, sinceMs: performance.now() })
    },
  }

  const open = (request: UpstreamRequest) => {
    if (closed) return request.onFailure(new UpstreamError('upstream_unreachable', { cause: 'shutdown' }))
    if (request.cancelled) return request.onFailure(new UpstreamError('caller_gone'))
    const connection = new Connection(options, owner)
    all.add(connection)
    connection.send(request)
  }

  const takeWaiting = (): UpstreamRequest | undefined => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (!next.request.cancelled) return next.request
      next.request.onFailure(new UpstreamError('caller_gone'))
    }
    return undefined
  }

  /** They wait no longer than for a response: connections may be held by callers that take their time. */
  const failLate = (now: number) => {
    while (waiting[0] !== undefined && now - waiting[0].sinceMs >= options.responseTimeoutMs) {
      waiting.shift()?.request.onFailure(new UpstreamError('upstream_timeout', { cause: 'no connection free' }))
    }
  }

  const sweep = setInterval(() => {
    const now = performance.now()
    failLate(now)
    for (const connection of all) connection.checkDeadline(now)
    for (const connection of [...idle]) {
      const limit = Math.min(KEEP_ALIVE_MS, connection.keepAliveMs - KEEP_ALIVE_MARGIN_MS)
      if (now - connection.idleSinceMs >= limit) connection.close()
    }
  }, SWEEP_INTERVAL_MS).unref()

  return {
    dispatch(request) {
      // The one used last: others grow old and are closed.
      const connection = idle.pop()
      if (connection !== undefined) return connection.send(request)
      if (all.size < options.connections) return open(request)
      waiting.push({ request, sinceMs: performance.now() })
    },
    close() {
      closed = true
      clearInterval(sweep)
      for (const connection of [...all]) connection.close()
    },
  }
}
