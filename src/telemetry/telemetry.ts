import type { Log } from './log.ts'
import { clip, clipDetail, safeErrorFields } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createOutcomeRecorder, type OutcomeRecorder } from './outcome.ts'
import { CODES, type Detail, type RefusalCode } from '../errors.ts'

/** The states that an issuer's keys can be in, for the label of a metric. */
const KEYS_STATES = ['empty', 'fresh', 'refreshing', 'stale', 'expired'] as const
type KeysState = (typeof KEYS_STATES)[number]

/** What happened with an issuer's keys, as far as it is written down. */
export type KeysFetched =
  | {
      readonly ok: true
      readonly source: 'issuer' | 'seed'
      readonly changed: boolean
      readonly recovered: boolean
      readonly parsed: {
        readonly keys: readonly unknown[]
        readonly skipped: readonly { readonly kid: string; readonly reason: string }[]
      }
    }
  | {
      readonly ok: false
      readonly source: 'issuer' | 'seed'
      readonly error: unknown
      readonly retryInMs: number
      readonly state: KeysState
      readonly ageSeconds: number | undefined
    }

export interface ExchangeFinished {
  readonly requestId: string
  readonly caller: string
  readonly client: string
  readonly grant: string
  readonly code: string
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
  readonly shared: 'coalesced' | 'replayed' | undefined
}

const BREAKER_STATES = ['closed', 'open', 'half_open'] as const
const STORE_STATES = ['ready', 'unavailable'] as const

/** What the helper made of an answer of an issuer. */
export interface AnswerValidated {
  readonly client: string
  readonly grant: string
  readonly result: 'valid' | 'refused' | 'keys_unavailable'
  readonly heldMs: number
  readonly validated: { readonly idToken: string; readonly accessToken: string; readonly subject: string } | undefined
  readonly detail: Detail | undefined
}

interface WatchedIssuer {
  readonly name: string
  status(): { readonly state: KeysState; readonly ageSeconds: number | undefined; readonly keys: number }
}

/** Everything that is written down, by name of what happened: rooms call these and never the log. */
export interface Telemetry {
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
  readonly exchangeFinished: (outcome: ExchangeFinished) => void
  readonly exchangeCoalesced: (client: string) => void
  /** Tokens that a client got for itself could not be renewed ahead of their end. */
  readonly renewalFailed: (client: string, code: string) => void
  readonly exchangeReplayed: (client: string) => void
  readonly exchangeUnshared: (client: string) => void
  readonly refreshTokenSealed: (client: string, operation: 'seal' | 'open' | 'refuse') => void
  readonly breakerChanged: (issuer: string, state: (typeof BREAKER_STATES)[number]) => void
  /** The store became usable, or stopped being so for a reason. */
  readonly storeChanged: (fault: string | undefined, onFailure: 'local' | 'refuse') => void
  /** An answer of an issuer was validated, or was not. */
  readonly answerValidated: (outcome: AnswerValidated) => void
  /** The refresh token of an answer that was refused was revoked, or was not for this reason. */
  readonly refusedTokenRevoked: (client: string, failure: string | undefined) => void
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
  /** Whether requests that went well get a line, too. Asked for each. */
  readonly accessLog: () => boolean
  /** Puts a failed fetch into words without URLs or bodies. */
  readonly describeFetchError: (error: unknown) => string
}

/** Creates the functions through which the rooms report. */
export function createTelemetry({ log, metrics, accessLog, describeFetchError }: TelemetryOptions): Telemetry {
  let inFlight = 0
  let droppedBefore = 0
  const presented = { hit: 0, miss: 0 }
  let issuers: readonly WatchedIssuer[] = []
  let tokenCache: TokenCacheStatus | undefined
  let store: StoreStatus | undefined
  const leftAlone = new Set<string>()
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
      const { ok, source } = event
      if (source === 'issuer') {
        metrics.count('bearward_jwks_fetches_total', { issuer, result: ok ? 'success' : 'failure' })
      }
      if (ok) writeKeys(log, issuer, event)
      else writeKeysFailure(log, issuer, event, clip(describeFetchError(event.error)))
    },

    exchangeFinished({ requestId, caller, client, grant, code, status, durationMs, detail, shared }) {
      metrics.count('bearward_helper_exchanges_total', { client, grant, code })
      metrics.observe('bearward_helper_duration_seconds', durationMs / 1000, { grant })
      const write = status >= 500 ? log.warn : log.info
      write('exchange', {
        request_id: requestId,
        caller,
        client,
        grant,
        code,
        status,
        shared,
        duration_ms: Math.round(durationMs * 1000) / 1000,
        detail: detail === undefined ? undefined : clipDetail(detail),
      })
    },

    exchangeCoalesced: (client) => metrics.count('bearward_helper_coalesced_total', { client }),
    exchangeReplayed: (client) => metrics.count('bearward_helper_replayed_total', { client }),
    exchangeUnshared: (client) => metrics.count('bearward_helper_unshared_total', { client }),
    refreshTokenSealed: (client, operation) => metrics.count('bearward_helper_sealed_total', { client, operation }),

    breakerChanged(issuer, state) {
      for (const one of BREAKER_STATES) {
        metrics.set('bearward_helper_breaker_state', one === state ? 1 : 0, { issuer, state: one })
      }
      // It is tried and left alone again and again: said once.
      const write = state === 'open' && !leftAlone.has(issuer) ? log.warn : state === 'closed' ? log.info : log.debug
      write(BREAKER_LINES[state], { issuer })
      if (state === 'closed') leftAlone.delete(issuer)
      else leftAlone.add(issuer)
    },

    storeChanged(fault, onFailure) {
      if (fault === undefined) log.info('the store can be used')
      else log.warn(`the store cannot be used; ${STORE_FAILURE[onFailure]}`, { reason: clip(fault) })
    },

    renewalFailed(client, code) {
      log.warn('the token of a client could not be renewed yet; the old one is used on', { client, code })
    },

    answerValidated({ client, grant, result, heldMs, validated, detail }) {
      metrics.count('bearward_helper_validations_total', { client, result })
      const write = result === 'valid' ? log.debug : log.error
      write(result === 'valid' ? 'answer validated' : 'answer of the issuer withheld', {
        client,
        grant,
        result,
        held_ms: heldMs,
        id_token: validated?.idToken,
        access_token: validated?.accessToken,
        subject: validated?.subject,
        detail: detail === undefined ? undefined : clipDetail(detail),
      })
    },

    refusedTokenRevoked(client, failure) {
      if (failure === undefined) log.info('refresh token of the withheld answer revoked', { client })
      else log.warn('refresh token of the withheld answer not revoked', { client, reason: failure })
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

const BREAKER_LINES = {
  open: 'the issuer fails and is left alone; grants are refused unspent',
  half_open: 'the issuer is tried again',
  closed: 'the issuer answers again',
} as const

const STORE_FAILURE = {
  local: 'until it can, grants are spent without it, and another replica may spend the same ones, too',
  refuse: 'until it can, grants are refused unspent',
} as const

/** One log line is not the place for more. */
const MAX_PROBLEMS = 20

function setIssuers(metrics: Metrics, issuers: readonly WatchedIssuer[]): void {
  for (const name of ['bearward_jwks_state', 'bearward_jwks_keys', 'bearward_jwks_age_seconds']) metrics.clear(name)
  for (const { name, status } of issuers) {
    const { state, ageSeconds, keys } = status()
    for (const one of KEYS_STATES) {
      metrics.set('bearward_jwks_state', one === state ? 1 : 0, { issuer: name, state: one })
    }
    metrics.set('bearward_jwks_keys', keys, { issuer: name })
    if (ageSeconds !== undefined) metrics.set('bearward_jwks_age_seconds', ageSeconds, { issuer: name })
  }
}

function setTokenCache(metrics: Metrics, status: TokenCacheStatus | undefined): void {
  if (status === undefined) return
  const { entries, bytes } = status()
  metrics.set('bearward_token_cache_entries', entries)
  metrics.set('bearward_token_cache_bytes', bytes)
}

function setStore(metrics: Metrics, status: StoreStatus | undefined): void {
  metrics.clear('bearward_store_state')
  if (status === undefined) return
  const isReady = status().state === 'ready'
  for (const state of STORE_STATES) {
    metrics.set('bearward_store_state', (state === 'ready') === isReady ? 1 : 0, { state })
  }
}

type KeysLoaded = Extract<KeysFetched, { ok: true }>
type KeysFailed = Extract<KeysFetched, { ok: false }>

/** Says once what a set holds: again only when that changed, or when there is something to be relieved about. */
function writeKeys(log: Log, issuer: string, { source, changed, recovered, parsed }: KeysLoaded): void {
  const skipped = parsed.skipped.map(({ kid, reason }) => clip(`${kid}: ${reason}`))
  const fields = { issuer, keys: parsed.keys.length, skipped }
  if (source === 'seed') log.warn('keys taken from the seed file until the issuer answers', fields)
  else if (changed) log.info('keys loaded', fields)
  else if (recovered) log.info('keys can be fetched again', { issuer, keys: parsed.keys.length })
  else log.debug('keys unchanged', { issuer, keys: parsed.keys.length })
}

function writeKeysFailure(log: Log, issuer: string, event: KeysFailed, reason: string): void {
  const { source, state, ageSeconds, retryInMs } = event
  if (source === 'seed') return log.error('the seed file cannot be used', { issuer, reason })
  const fields = { issuer, reason, state, age_seconds: ageSeconds, retry_in_ms: retryInMs }
  // Without keys nothing passes; with stale ones everything does, for the time being.
  if (state === 'expired') log.error('keys could not be fetched for too long and are used no more', fields)
  else if (state === 'stale') log.warn('keys could not be fetched; the old ones are used on', fields)
  else log.warn('keys could not be fetched', fields)
}
