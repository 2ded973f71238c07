import { unavailable } from '../errors.ts'
import { backoffMs } from '../util/backoff.ts'
import type { Clock } from '../util/clock.ts'
import { createHeldKeys, type HeldKeys, type HeldKeysOptions, type JwksState, type KeysSoFar } from './held-keys.ts'
import type { ParsedKeys, VerificationKey } from './jwks.ts'
import { createUnknownKids } from './unknown-kids.ts'

export type { VerificationKey } from './jwks.ts'

/** The keys of one issuer, as verification sees them. */
export interface IssuerKeys {
  /**
   * The keys that may verify a token with this header: those with its `kid`, or all that fit when it has none. At once
   * when there are any; an unknown `kid` fetches the keys once more, but not sooner than the cool-down allows.
   *
   * @throws (or rejects with) Unavailable `keys_unavailable` while no keys are known, when those known are too old, or when
   * the `kid` is unknown and the issuer does not answer; Refusal `algorithm_not_allowed` when the key with this `kid` is
   * for other algorithms
   */
  find(kid: string | undefined, alg: string): readonly VerificationKey[] | Promise<readonly VerificationKey[]>
  /** Whether the issuer still publishes a key, as far as is known and was not too long ago. */
  isCurrent(key: VerificationKey, nowMs: number): boolean
}

export interface JwksStatus {
  readonly state: JwksState
  /** Seconds since the issuer last confirmed the keys; absent while it never did. */
  readonly ageSeconds: number | undefined
  readonly keys: number
  /** Scheduled fetches that failed since one succeeded. */
  readonly failures: number
}

export interface FetchedKeys {
  readonly parsed: ParsedKeys
  /** How long the issuer allows them to be used, in milliseconds; absent when it does not say. */
  readonly freshnessMs: number | undefined
}

export interface JwksCacheOptions extends HeldKeysOptions {
  /** Name of the issuer, for errors. */
  readonly issuerName: string
  /**
   * Fetches and parses the keys; its failures are reported through `onFetch`.
   *
   * @param conditional - whether "not modified" is an answer; not for an unknown `kid`, which may prove the answer wrong
   */
  readonly fetch: (conditional: boolean) => Promise<FetchedKeys>
  /** Reads keys to begin with when the first fetch fails. Called at start, so that a file that is no good is noticed then. */
  readonly readSeed: (() => Promise<ParsedKeys>) | undefined
  readonly onFetch: (result: FetchResult) => void
}

/** `source`: where the keys were to come from; what is in the seed file, no issuer has confirmed. */
export type FetchResult =
  | {
      readonly ok: true
      readonly source: 'issuer' | 'seed'
      readonly parsed: ParsedKeys
      /** Whether anything differs from before, the keys that were left out included. */
      readonly changed: boolean
      /** Whether attempts failed before this one. */
      readonly recovered: boolean
    }
  | {
      readonly ok: false
      readonly source: 'issuer' | 'seed'
      readonly error: unknown
      readonly retryInMs: number
      readonly state: JwksState
      readonly ageSeconds: number | undefined
    }

/** What a response says about its freshness counts from here on: Auth0 says 15 s, Keycloak and at times Okta say none. */
const LEAST_FRESHNESS_MS = 5 * 60_000
/** Between two fetches for unknown `kid`s, counted from each attempt: a forged `kid` must not cost the issuer more. */
const COOL_DOWN_MS = 10_000
/** How long a request waits for a fetch that is under way. */
const PATIENCE_MS = 5_000
/** How many requests may do so at a time. */
const MAX_WAITING = 1_000
/** Without usable keys nothing can be served, so the issuer is asked again soon. */
const RETRY_UNUSABLE = { baseMs: 500, maxMs: 10_000 }
const RETRY = { baseMs: 1_000, maxMs: 60_000 }

export interface JwksCache extends IssuerKeys {
  /** Fetches now and from then on in the background; resolves at once. */
  start(): void
  close(): void
  status(): JwksStatus
  /** What another cache may begin with; undefined when there are no keys. */
  soFar(): KeysSoFar | undefined
}

/** One fetch under way. */
interface Attempt {
  readonly startedMs: number
  /** Settles with the fetch, or when requests should wait no longer. */
  readonly patience: Promise<void>
  /** Set when it ended. */
  outcome: 'success' | 'failure' | undefined
}

/**
 * Keeps the keys of one issuer: fetched ahead of need and one fetch at a time, used on while the issuer is down, given up
 * when that lasts too long. No request waits for a fetch while a usable key answers to its `kid`.
 *
 * What unknown `kid`s bring about neither delays nor replaces a scheduled fetch, and the other way round.
 */
export function createJwksCache(options: JwksCacheOptions): JwksCache {
  return new Keys(options)
}

class Keys implements JwksCache {
  readonly #options: JwksCacheOptions
  readonly #clock: Clock
  readonly #held: HeldKeys
  readonly #unknownKids = createUnknownKids()
  #seed: Promise<ParsedKeys | undefined> | undefined
  /** From when on the schedule wants a fetch. */
  #dueMs = 0
  /** Whether that time came and no fetch has succeeded or failed since. */
  #isDue = false
  #failures = 0
  #lastFailed = false
  #lookedUpMs = -Infinity
  #underWay: Attempt | undefined
  #waiting = 0
  #cancel: (() => void) | undefined
  #closed = false

  constructor(options: JwksCacheOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#held = createHeldKeys(options)
  }

  start(): void {
    this.#seed = this.#readSeed()
    this.#whenDue()
  }

  close(): void {
    this.#closed = true
    this.#cancel?.()
  }

  find(kid: string | undefined, alg: string): readonly VerificationKey[] | Promise<readonly VerificationKey[]> {
    const found = this.#held.select(kid, alg)
    if (found.length > 0) return found
    const nowMs = this.#clock.now()
    if (kid !== undefined && this.#held.isUsable(nowMs) && this.#unknownKids.has(kid, nowMs)) return found
    return this.#lookUp(kid, alg, nowMs)
  }

  isCurrent(key: VerificationKey, nowMs: number): boolean {
    return this.#held.isCurrent(key, nowMs)
  }

  status(): JwksStatus {
    const nowMs = this.#clock.now()
    return {
      state: this.#held.stateAt(nowMs, this.#isDue || this.#failures > 0),
      ageSeconds: this.#held.ageSeconds(nowMs),
      keys: this.#held.size,
      failures: this.#failures,
    }
  }

  soFar(): KeysSoFar | undefined {
    return this.#held.soFar()
  }

  /** The way of a request whose key is not known: it waits for a fetch, if one is under way or may be begun. */
  async #lookUp(kid: string | undefined, alg: string, arrivedMs: number): Promise<readonly VerificationKey[]> {
    if (this.#waiting >= MAX_WAITING) throw this.#unavailable()
    this.#waiting += 1
    try {
      // A fetch that was under way before the request came may bring an answer that is older than its key: then once more.
      for (let round = 0; round < 2; round += 1) {
        const attempt = this.#underWay ?? this.#fetchForUnknownKid()
        if (attempt === undefined) break
        await attempt.patience
        const found = this.#held.select(kid, alg)
        if (found.length > 0) return found
        if (attempt.outcome !== 'success') throw this.#unavailable()
        if (attempt.startedMs < arrivedMs) continue
        if (kid !== undefined) this.#unknownKids.add(kid, this.#clock.now())
        return found
      }
    } finally {
      this.#waiting -= 1
    }
    // With no keys, or with old ones and no way to learn of new ones, nothing can be said about the token.
    if (this.#lastFailed || !this.#held.isUsable(this.#clock.now())) throw this.#unavailable()
    return []
  }

  #unavailable() {
    const { state } = this.status()
    return unavailable('keys_unavailable', { issuer: this.#options.issuerName, keys: state })
  }

  #fetchForUnknownKid(): Attempt | undefined {
    const nowMs = this.#clock.now()
    // While there never were keys, the schedule asks for them often enough.
    if (this.#held.isEmpty || nowMs - this.#lookedUpMs < COOL_DOWN_MS) return undefined
    this.#lookedUpMs = nowMs
    return this.#begin(false)
  }

  #whenDue(): void {
    this.#isDue = true
    if (this.#underWay === undefined) this.#begin(true)
  }

  #begin(conditional: boolean): Attempt {
    const { promise: patience, resolve } = Promise.withResolvers<void>()
    const attempt: Attempt = { startedMs: this.#clock.now(), patience, outcome: undefined }
    this.#underWay = attempt
    const cancel = this.#clock.after(PATIENCE_MS, resolve)
    void this.#run(attempt, conditional).finally(() => {
      this.#underWay = undefined
      cancel()
      resolve()
    })
    return attempt
  }

  async #run(attempt: Attempt, conditional: boolean): Promise<void> {
    try {
      const fetched = await this.#options.fetch(conditional)
      attempt.outcome = 'success'
      if (!this.#closed) this.#succeed(fetched)
    } catch (error) {
      attempt.outcome = 'failure'
      if (!this.#closed) await this.#fail(error)
    }
  }

  #succeed({ parsed, freshnessMs }: FetchedKeys): void {
    const { refreshIntervalMs } = this.#options
    const lifetimeMs = Math.min(refreshIntervalMs, Math.max(LEAST_FRESHNESS_MS, freshnessMs ?? refreshIntervalMs))
    const recovered = this.#lastFailed
    const changed = this.#held.confirm(parsed, lifetimeMs)
    this.#failures = 0
    this.#lastFailed = false
    // Spread out, so that pods that were started together do not fetch together for ever.
    this.#schedule(lifetimeMs * (0.7 + Math.random() * 0.15))
    this.#options.onFetch({ ok: true, source: 'issuer', parsed, changed, recovered })
  }

  async #fail(error: unknown): Promise<void> {
    const isFirst = this.#held.isEmpty && this.#failures === 0
    this.#lastFailed = true
    if (this.#isDue) {
      this.#failures += 1
      this.#schedule(backoffMs(this.#failures, this.#held.isUsable(this.#clock.now()) ? RETRY : RETRY_UNUSABLE))
    }
    const seed = isFirst ? await this.#seed : undefined
    if (seed !== undefined) {
      const changed = this.#held.seed(seed)
      this.#options.onFetch({ ok: true, source: 'seed', parsed: seed, changed, recovered: false })
    }
    this.#reportFailure('issuer', error)
  }

  async #readSeed(): Promise<ParsedKeys | undefined> {
    try {
      return await this.#options.readSeed?.()
    } catch (error) {
      this.#reportFailure('seed', error)
      return undefined
    }
  }

  #reportFailure(source: 'issuer' | 'seed', error: unknown): void {
    const { state, ageSeconds } = this.status()
    const retryInMs = Math.max(0, this.#dueMs - this.#clock.now())
    this.#options.onFetch({ ok: false, source, error, retryInMs, state, ageSeconds })
  }

  #schedule(delayMs: number): void {
    this.#isDue = false
    this.#dueMs = this.#clock.now() + delayMs
    this.#cancel?.()
    if (!this.#closed) this.#cancel = this.#clock.after(delayMs, () => this.#whenDue())
  }
}
