import { createHelperEvents, type HelperEvents } from './helper-events.ts'
import { setIssuers, writeKeysFetched, type KeysFetched, type WatchedIssuer } from './issuer-keys.ts'
import { safeErrorFields, type Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createOutcomeRecorder, type OutcomeRecorder } from './outcome.ts'
import { CODES, type RefusalCode } from '../errors.ts'
import type { Clock } from '../util/clock.ts'

/** Everything that is written down, by name of what happened: rooms call these and never the log. */
export interface Telemetry extends HelperEvents {
  readonly requestFinished: OutcomeRecorder
  /** A request whose header could not be parsed. */
  readonly requestUnreadable: (code: RefusalCode, reason: string, peer: string, requestId: string) => void
  readonly inFlightChanged: (change: 1 | -1) => void
  readonly connectionDropped: () => void
  readonly handshakeFailed: (reason: string, peer: string) => void
  /** The files of the TLS listener changed: `undefined` for good ones, or why they are not used. */
  readonly certificatesRotated: (fault: string | undefined) => void
  readonly tokenPresented: (result: 'hit' | 'miss') => void
  readonly keysFetched: (issuer: string, event: KeysFetched) => void
  readonly unexpectedError: (error: unknown, requestId?: string) => void
  /** The upstream answers where others can reach it, at this address. */
  readonly upstreamExposed: (address: string) => void
  /** These are the issuers from now on. */
  readonly watchIssuers: (issuers: readonly WatchedIssuer[]) => void
  readonly watchTokenCache: (status: TokenCacheStatus) => void
  /** This is the store that replicas share from now on; none for `undefined`. */
  readonly watchStore: (status: StoreStatus | undefined) => void
  /** The configuration was loaded, at this time in milliseconds since the Unix epoch. */
  readonly configLoaded: (atMs: number) => void
  /** A changed configuration was taken into use, or was not for these reasons. */
  readonly reloaded: (problems: readonly string[]) => void
}

type StoreStatus = () => { readonly state: string }
type TokenCacheStatus = () => { readonly entries: number; readonly bytes: number }

export interface TelemetryOptions {
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  /** Whether requests that went well get a line, too. Asked for each. */
  readonly accessLog: () => boolean
  /** Puts a failed fetch into words without URLs or bodies. */
  readonly describeFetchError: (error: unknown) => string
}

/** Creates the functions through which the rooms report. */
export function createTelemetry(options: TelemetryOptions): Telemetry {
  const { log, metrics, clock, accessLog, describeFetchError } = options
  let inFlight = 0
  let droppedBefore = 0
  const presented = { hit: 0, miss: 0 }
  let issuers: readonly WatchedIssuer[] = []
  let tokenCache: TokenCacheStatus | undefined
  let store: StoreStatus | undefined
  metrics.onScrape(() => {
    setIssuers(metrics, issuers)
    setTokenCache(metrics, tokenCache)
    setStore(metrics, store)
    metrics.set('bearward_requests_in_flight', inFlight)
    const dropped = log.droppedLines()
    metrics.count('bearward_log_lines_dropped_total', {}, dropped - droppedBefore)
    droppedBefore = dropped
    for (const result of ['hit', 'miss'] as const) {
      metrics.count('bearward_token_cache_total', { result }, presented[result])
      presented[result] = 0
    }
  })
  return {
    ...createHelperEvents(log, metrics, clock),

    requestFinished: createOutcomeRecorder(log, metrics, accessLog),

    requestUnreadable(code, reason, peer, requestId) {
      const { status } = CODES[code]
      metrics.requests.add('none', code, Math.floor(status / 100))
      log.info('request', { request_id: requestId, peer, rule: 'none', code, status, detail: { reason } })
    },

    inFlightChanged(change) {
      inFlight += change
    },

    connectionDropped: () => metrics.count('bearward_connections_dropped_total'),

    handshakeFailed(reason, peer) {
      metrics.count('bearward_tls_handshakes_failed_total')
      log.info('tls handshake failed', { peer, reason })
    },

    certificatesRotated(fault) {
      if (fault === undefined) log.info('certificate replaced')
      else log.error('the new certificate files cannot be used; the old ones stay', { reason: fault })
    },

    tokenPresented: (result) => void (presented[result] += 1),

    keysFetched(issuer, event) {
      if (event.source === 'issuer') {
        metrics.count('bearward_jwks_fetches_total', { issuer, result: event.ok ? 'success' : 'failure' })
      }
      writeKeysFetched(log, issuer, event, describeFetchError)
    },

    unexpectedError(error, requestId) {
      metrics.count('bearward_unexpected_errors_total')
      log.error('unexpected error', { request_id: requestId, ...safeErrorFields(error) })
    },

    upstreamExposed(address) {
      metrics.set('bearward_upstream_exposed', 1)
      const way = 'let it listen on 127.0.0.1, and until then close its port by a network policy'
      log.warn(
        `the upstream answers on the address of the pod: whoever reaches it there gets around bearward; ${way}`,
        {
          address,
        },
      )
    },

    watchIssuers: (current) => void (issuers = current),
    watchTokenCache: (status) => void (tokenCache = status),
    watchStore: (status) => void (store = status),

    configLoaded(atMs) {
      metrics.set('bearward_config_loaded_timestamp_seconds', atMs / 1000)
      metrics.set('bearward_last_reload_successful', 1)
    },

    reloaded(problems) {
      const failed = problems.length > 0
      metrics.count('bearward_reloads_total', { result: failed ? 'failure' : 'success' })
      metrics.set('bearward_last_reload_successful', failed ? 0 : 1)
      const shown = problems.slice(0, MAX_PROBLEMS)
      if (failed) log.error('the configuration was not reloaded; the one before is used on', { problems: shown })
      else log.info('configuration reloaded')
    },
  }
}

/** One log line is not the place for more. */
const MAX_PROBLEMS = 20

function setTokenCache(metrics: Metrics, status: TokenCacheStatus | undefined): void {
  if (status === undefined) return
  const { entries, bytes } = status()
  metrics.set('bearward_token_cache_entries', entries)
  metrics.set('bearward_token_cache_bytes', bytes)
}

const STORE_STATES = ['ready', 'unavailable'] as const

function setStore(metrics: Metrics, status: StoreStatus | undefined): void {
  metrics.clear('bearward_store_state')
  if (status === undefined) return
  const isReady = status().state === 'ready'
  for (const state of STORE_STATES) {
    metrics.set('bearward_store_state', (state === 'ready') === isReady ? 1 : 0, { state })
  }
}
