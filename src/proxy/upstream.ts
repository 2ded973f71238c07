import { Pool, type Dispatcher } from 'undici'

export interface UpstreamOptions {
  /** Origin, such as `http://127.0.0.1:3000`; nothing of a request can change it. */
  readonly origin: string
  readonly connectTimeoutMs: number
  /** Until the response header, in milliseconds. */
  readonly responseTimeoutMs: number
  /** Longest silence within a response body, in milliseconds; 0 for none. */
  readonly idleTimeoutMs: number
  /** Most connections to the upstream. */
  readonly connections: number
}

/** The backend behind this sidecar. Only proxy/forward.ts uses it, and that takes a Permit. */
export interface Upstream {
  dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void
  close(): Promise<void>
}

/** Below the five seconds after which Node backends close an idle connection, so that we are the ones who close it. */
const KEEP_ALIVE_MS = 4_000
const MAX_RESPONSE_HEADER_BYTES = 64 * 1024

/** Creates the pool of connections. Nothing is opened before the first request. */
export function createUpstream(options: UpstreamOptions): Upstream {
  const pool = new Pool(options.origin, {
    connections: options.connections,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connect: { timeout: options.connectTimeoutMs },
    headersTimeout: options.responseTimeoutMs,
    bodyTimeout: options.idleTimeoutMs,
    maxHeaderSize: MAX_RESPONSE_HEADER_BYTES,
  })
  return {
    dispatch: (request, handler) => void pool.dispatch(request, handler),
    close: () => pool.destroy(),
  }
}
