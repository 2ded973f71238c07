import { UpstreamError } from '../errors.ts'
import type { UpstreamRequest } from './connection.ts'
import { UpstreamSession, type SessionOptions, type SessionOwner } from './http2-session.ts'
import type { Upstream, UpstreamOptions } from './upstream.ts'

export type Http2UpstreamOptions = UpstreamOptions & Partial<SessionOptions>

/** Below the 75 seconds after which the first of the usual servers close an idle connection. */
const KEEP_ALIVE_MS = 60_000
const PING_AFTER_MS = 6 * 60_000
const PING_TIMEOUT_MS = 15_000
const SWEEP_INTERVAL_MS = 250

/** A request for which there is no room yet. */
interface Waiting {
  readonly request: UpstreamRequest
  /** False for one that is sent once more. */
  readonly first: boolean
  readonly sinceMs: number
}

/** Creates the pool of connections to an upstream that speaks HTTP/2. One is used until it is full, then the next. */
export function createHttp2Upstream(options: Http2UpstreamOptions): Upstream {
  const sessionOptions = { pingAfterMs: PING_AFTER_MS, pingTimeoutMs: PING_TIMEOUT_MS, ...options }
  /** Those that take requests, and those that are only brought to their end. */
  const usable: UpstreamSession[] = []
  const all = new Set<UpstreamSession>()
  const waiting: Waiting[] = []
  let closed = false

  const owner: SessionOwner = {
    onRoom() {
      while (waiting.length > 0) {
        const session = findRoom()
        const next = session && waiting.shift()
        if (session === undefined || next === undefined) return
        send(session, next.request, next.first)
      }
    },
    onClosed(session) {
      const at = usable.indexOf(session)
      if (at !== -1) usable.splice(at, 1)
      owner.onRoom()
    },
    onRetry: (request) => dispatch(request, false),
  }

  const open = (): UpstreamSession => {
    const session = new UpstreamSession(sessionOptions, owner)
    usable.push(session)
    all.add(session)
    return session
  }

  const findRoom = (): UpstreamSession | undefined => {
    for (const session of usable) if (session.hasRoom) return session
    return usable.length < options.connections ? open() : undefined
  }

  const send = (session: UpstreamSession, request: UpstreamRequest, first: boolean) => {
    if (request.cancelled) request.onFailure(new UpstreamError('caller_gone'))
    else session.carry(request, first)
  }

  const dispatch = (request: UpstreamRequest, first: boolean) => {
    if (closed) return request.onFailure(new UpstreamError('upstream_unreachable', { cause: 'shutdown' }))
    const session = findRoom()
    if (session === undefined) waiting.push({ request, first, sinceMs: performance.now() })
    else send(session, request, first)
  }

  /** They wait no longer than for a response: streams may be held by callers that take their time. */
  const failLate = (now: number) => {
    while (waiting[0] !== undefined && now - waiting[0].sinceMs >= options.responseTimeoutMs) {
      waiting.shift()?.request.onFailure(new UpstreamError('upstream_timeout', { cause: 'no stream free' }))
    }
  }

  const sweep = setInterval(() => {
    const now = performance.now()
    failLate(now)
    for (const session of all) {
      session.check(now, KEEP_ALIVE_MS)
      if (session.isOver) all.delete(session)
    }
  }, SWEEP_INTERVAL_MS).unref()

  return {
    dispatch: (request) => dispatch(request, true),
    close() {
      closed = true
      clearInterval(sweep)
      for (const session of all) session.close()
    },
  }
}
