import { refusal, unavailable } from '../errors.ts'
import { backoffMs } from '../util/backoff.ts'
import type { Clock } from '../util/clock.ts'
import type { ParsedKeys, VerificationKey } from './jwks.ts'

export type { VerificationKey } from './jwks.ts'

/** The keys of one issuer, as verification sees them. */
export interface IssuerKeys {
  /**
   * The keys that may verify a token with this header: those with its `kid`, or all that fit when it has none. An unknown
   * `kid` fetches the keys once more, but not sooner than the cool-down allows.
   *
   * @throws Unavailable `keys_unavailable` while no keys are known, or when the `kid` is unknown and the last fetch failed
   * @throws Refusal `algorithm_not_allowed` when the key with this `kid` is for other algorithms
   */
  find(kid: string | undefined, alg: string): Promise<readonly VerificationKey[]>
  /** Whether the issuer still publishes a key. */
  isCurrent(key: VerificationKey): boolean
}

export interface JwksStatus {
  readonly state: 'empty' | 'fresh' | 'stale'
  /** Seconds since the keys were last fetched; absent while there are none. */
  readonly ageSeconds: number | undefined
  readonly keys: number
}

export interface JwksCacheOptions {
  /** Name of the issuer, for errors. */
  readonly issuerName: string
  /** Fetches and parses the keys; its failures are reported through `onFetch`. */
  readonly fetch: () => Promise<ParsedKeys>
  /** Time between scheduled fetches in milliseconds; 30 s to 24 h. */
  readonly refreshIntervalMs: number
  readonly clock: Clock
  readonly onFetch: (result: FetchResult) => void
}

export type FetchResult =
  | { readonly ok: true; readonly parsed: ParsedKeys; readonly changed: boolean }
  | { readonly ok: false; readonly error: unknown; readonly retryInMs: number }

/** Between two fetches for unknown `kid`s, counted from each attempt: a forged `kid` must not cost the issuer more. */
const COOL_DOWN_MS = 10_000
/** Without any keys nothing can be served, so the issuer is asked again soon. */
const RETRY_EMPTY = { baseMs: 500, maxMs: 10_000 }
const RETRY = { baseMs: 1_000, maxMs: 60_000 }

export interface JwksCache extends IssuerKeys {
  /** Fetches now and from then on in the background; resolves at once. */
  start(): void
  close(): void
  status(): JwksStatus
}

/**
 * Keeps the keys of one issuer: fetched ahead of need, kept when a fetch fails, one fetch at a time. Refetching for
 * unknown `kid`s and the schedule do not wait for one another.
 */
export function createJwksCache(options: JwksCacheOptions): JwksCache {
  const { issuerName, clock, refreshIntervalMs, onFetch } = options
  let keys: ReadonlyMap<string, VerificationKey> | undefined
  let fetchedAtMs = 0
  let attemptedAtMs = -Infinity
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let closed = false
  let underWay: Promise<void> | undefined

  const schedule = (delayMs: number) => {
    clearTimeout(timer)
    if (!closed) timer = setTimeout(() => void refetch(), delayMs).unref()
  }

  const replace = ({ keys: fetched }: ParsedKeys): boolean => {
    const before = keys
    // A key that is published again stays the same object: what it verified stays remembered.
    keys = new Map(fetched.map((key) => [key.id, before?.get(key.id) ?? key]))
    return before === undefined || before.size !== keys.size || [...keys.keys()].some((id) => !before.has(id))
  }

  const attempt = async (): Promise<void> => {
    attemptedAtMs = clock.now()
    try {
      const parsed = await options.fetch()
      failures = 0
      fetchedAtMs = clock.now()
      onFetch({ ok: true, parsed, changed: replace(parsed) })
      schedule(refreshIntervalMs * (0.9 + Math.random() / 10))
    } catch (error) {
      failures += 1
      const retryInMs = backoffMs(failures, keys === undefined ? RETRY_EMPTY : RETRY)
      onFetch({ ok: false, error, retryInMs })
      schedule(retryInMs)
    }
  }

  const refetch = (): Promise<void> => {
    underWay ??= attempt().finally(() => (underWay = undefined))
    return underWay
  }

  const select = (kid: string | undefined, alg: string): VerificationKey[] => {
    const known = [...(keys?.values() ?? [])]
    if (kid === undefined) return known.filter((key) => key.algorithms.has(alg))
    const named = known.filter((key) => key.kid === kid)
    const fitting = named.filter((key) => key.algorithms.has(alg))
    if (named.length > 0 && fitting.length === 0) throw refusal('algorithm_not_allowed', { algorithm: alg, kid })
    return fitting
  }

  return {
    start: () => void refetch(),

    close() {
      closed = true
      clearTimeout(timer)
    },

    async find(kid, alg) {
      const found = select(kid, alg)
      if (found.length > 0) return found
      // While there are no keys at all, the schedule asks for them often enough: requests only wait for it.
      const mayFetch = keys !== undefined && clock.now() - attemptedAtMs >= COOL_DOWN_MS
      await (mayFetch ? refetch() : underWay)
      const foundAfter = select(kid, alg)
      // With no keys, or with old ones and no way to learn of new ones, nothing can be said about the token.
      if (foundAfter.length === 0 && (keys === undefined || failures > 0)) {
        throw unavailable('keys_unavailable', { issuer: issuerName })
      }
      return foundAfter
    },

    isCurrent: (key) => keys?.get(key.id) === key,

    status() {
      if (keys === undefined) return { state: 'empty', ageSeconds: undefined, keys: 0 }
      const ageSeconds = Math.max(0, Math.round((clock.now() - fetchedAtMs) / 1000))
      return { state: failures > 0 ? 'stale' : 'fresh', ageSeconds, keys: keys.size }
    },
  }
}
