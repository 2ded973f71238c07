import type { Log } from './log.ts'
import { clip, clipDetail, safeErrorFields } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createOutcomeRecorder, type OutcomeRecorder } from './outcome.ts'
import { CODES, type Detail, type RefusalCode } from '../errors.ts'

/** What happened with an issuer's keys, as far as it is written down. */
export type KeysFetched =
  | {
      readonly ok: true
      readonly changed: boolean
      readonly parsed: {
        readonly keys: readonly unknown[]
        readonly skipped: readonly { readonly kid: string; readonly reason: string }[]
      }
    }
  | { readonly ok: false; readonly error: unknown; readonly retryInMs: number }

export interface ExchangeFinished {
  readonly requestId: string
  readonly client: string
  readonly grant: string
  readonly code: string
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
}

interface WatchedIssuer {
  readonly name: string
  status(): { readonly ageSeconds: number | undefined; readonly keys: number }
}

/** Everything that is written down, by name of what happened: rooms call these and never the log. */
export interface Telemetry {
  readonly requestFinished: OutcomeRecorder
  /** A request whose header could not be parsed. */
  readonly requestUnreadable: (code: RefusalCode, reason: string, peer: string, requestId: string) => void
  readonly inFlightChanged: (change: 1 | -1) => void
  readonly tokenPresented: (result: 'hit' | 'miss') => void
  readonly keysFetched: (issuer: string, event: KeysFetched) => void
  readonly exchangeFinished: (outcome: ExchangeFinished) => void
  readonly exchangeCoalesced: (client: string) => void
  readonly unexpectedError: (error: unknown, requestId?: string) => void
  /** The upstream answers where others can reach it, at this address. */
  readonly upstreamExposed: (address: string) => void
  readonly watchIssuers: (issuers: readonly WatchedIssuer[]) => void
}

export interface TelemetryOptions {
  readonly log: Log
  readonly metrics: Metrics
  readonly accessLog: boolean
  /** Puts a failed fetch into words without URLs or bodies. */
  readonly describeFetchError: (error: unknown) => string
}

/** Creates the functions through which the rooms report. */
export function createTelemetry({ log, metrics, accessLog, describeFetchError }: TelemetryOptions): Telemetry {
  let inFlight = 0
  let droppedBefore = 0
  const presented = { hit: 0, miss: 0 }
  metrics.onScrape(() => {
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
    requestFinished: createOutcomeRecorder(log, metrics, accessLog),

    requestUnreadable(code, reason, peer, requestId) {
      const { status } = CODES[code]
      metrics.requests.add('none', code, Math.floor(status / 100))
      log.info('request', { request_id: requestId, peer, rule: 'none', code, status, detail: { reason } })
    },

    inFlightChanged(change) {
      inFlight += change
    },

    tokenPresented: (result) => void (presented[result] += 1),

    keysFetched(issuer, event) {
      metrics.count('bearward_jwks_fetches_total', { issuer, result: event.ok ? 'success' : 'failure' })
      if (!event.ok) {
        const reason = clip(describeFetchError(event.error))
        return log.warn('keys could not be fetched', { issuer, reason, retry_in_ms: event.retryInMs })
      }
      const { keys, skipped } = event.parsed
      const fields = { issuer, keys: keys.length, skipped: skipped.map(({ kid, reason }) => clip(`${kid}: ${reason}`)) }
      if (event.changed) log.info('keys loaded', fields)
      else log.debug('keys unchanged', { issuer, keys: keys.length })
    },

    exchangeFinished({ requestId, client, grant, code, status, durationMs, detail }) {
      metrics.count('bearward_helper_exchanges_total', { client, grant, code })
      const write = status >= 500 ? log.warn : log.info
      write('exchange', {
        request_id: requestId,
        client,
        grant,
        code,
        status,
        duration_ms: Math.round(durationMs * 1000) / 1000,
        detail: detail === undefined ? undefined : clipDetail(detail),
      })
    },

    exchangeCoalesced: (client) => metrics.count('bearward_helper_coalesced_total', { client }),

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

    watchIssuers(issuers) {
      metrics.onScrape(() => {
        for (const { name, status } of issuers) {
          const { ageSeconds, keys } = status()
          metrics.set('bearward_jwks_keys', keys, { issuer: name })
          if (ageSeconds !== undefined) metrics.set('bearward_jwks_age_seconds', ageSeconds, { issuer: name })
        }
      })
    },
  }
}
