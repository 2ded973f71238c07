import { clip, type Log } from './log.ts'
import type { Metrics } from './metrics.ts'

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

/** An issuer whose keys are looked at whenever metrics are read. */
export interface WatchedIssuer {
  readonly name: string
  status(): { readonly state: KeysState; readonly ageSeconds: number | undefined; readonly keys: number }
}

/** Writes how the keys of all issuers are right now into the metrics. */
export function setIssuers(metrics: Metrics, issuers: readonly WatchedIssuer[]): void {
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

/**
 * Writes down what came of fetching keys.
 *
 * @param describe - puts a failure into words without URLs or bodies
 */
export function writeKeysFetched(
  log: Log,
  issuer: string,
  event: KeysFetched,
  describe: (error: unknown) => string,
): void {
  if (event.ok) writeKeys(log, issuer, event)
  else writeKeysFailure(log, issuer, event, clip(describe(event.error)))
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
