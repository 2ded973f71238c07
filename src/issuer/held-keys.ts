import type { Clock } from '../util/clock.ts'
import type { ParsedKeys, VerificationKey } from './jwks.ts'
import { createKeySet, type KeySetWithIds } from './key-set.ts'

/**
 * - `empty`: none were ever had; nothing can be verified
 * - `fresh`: as the issuer published them a short while ago
 * - `refreshing`: still fresh, and being fetched again ahead of time
 * - `stale`: their time is over because the issuer does not answer; they are used for at most `maxStaleMs` more
 * - `expired`: that is over, too; nothing can be verified
 */
export type JwksState = 'empty' | 'fresh' | 'refreshing' | 'stale' | 'expired'

/** Keys that a cache has, and since when. */
export interface KeysSoFar {
  readonly set: KeySetWithIds
  readonly skipped: string
  /** When the issuer confirmed them; undefined for those of a seed file. */
  readonly confirmedMs: number | undefined
  readonly freshUntilMs: number
}

export interface HeldKeysOptions {
  /** Longest time that keys count as fresh, in milliseconds; 30 s to 24 h. */
  readonly refreshIntervalMs: number
  /** How long stale keys go on being used, in milliseconds; 0 to 30 days. */
  readonly maxStaleMs: number
  /** Keys to begin with, of another cache of the same issuer: they are used for as long as the settings of this one say. */
  readonly before?: KeysSoFar | undefined
  readonly clock: Clock
}

/** The keys that an issuer published last, and for how long they may be used. */
export interface HeldKeys {
  /** How many there are, usable or not. */
  readonly size: number
  /** Whether none were ever had. */
  readonly isEmpty: boolean
  isUsable(nowMs: number): boolean
  /** Whether a key is still among them and usable. */
  isCurrent(key: VerificationKey, nowMs: number): boolean
  /**
   * The usable keys that fit the header of a token.
   *
   * @throws Refusal `algorithm_not_allowed` when the key with this `kid` is for other algorithms
   */
  select(kid: string | undefined, alg: string): readonly VerificationKey[]
  /** @param isRefreshing - whether fresh keys are being fetched again */
  stateAt(nowMs: number, isRefreshing: boolean): JwksState
  /** Seconds since the issuer confirmed them; undefined while it never did. */
  ageSeconds(nowMs: number): number | undefined
  /** The issuer published these just now; they are fresh for so many milliseconds. @returns whether anything differs from before */
  confirm(parsed: ParsedKeys, lifetimeMs: number): boolean
  /** Seed keys begin as stale: nobody knows how old they are. @returns whether anything differs from before */
  seed(parsed: ParsedKeys): boolean
  /** What another cache may begin with; undefined when there are no keys. */
  soFar(): KeysSoFar | undefined
}

const NONE: readonly VerificationKey[] = []

/** Creates the memory of one issuer's keys: what is held and how long it counts; when to fetch is decided elsewhere. */
export function createHeldKeys(options: HeldKeysOptions): HeldKeys {
  return new Held(options)
}

class Held implements HeldKeys {
  readonly #options: HeldKeysOptions
  #set: KeySetWithIds | undefined
  /** What was left out of the set, to tell whether that changed. */
  #skipped = ''
  #confirmedMs: number | undefined
  #freshUntilMs = 0
  #usableUntilMs = 0

  constructor(options: HeldKeysOptions) {
    this.#options = options
    if (options.before !== undefined) this.#takeOver(options.before)
  }

  get size(): number {
    return this.#set?.size ?? 0
  }

  get isEmpty(): boolean {
    return this.#set === undefined
  }

  isUsable(nowMs: number): boolean {
    return this.#set !== undefined && nowMs < this.#usableUntilMs
  }

  isCurrent(key: VerificationKey, nowMs: number): boolean {
    return this.#set !== undefined && nowMs < this.#usableUntilMs && this.#set.has(key)
  }

  select(kid: string | undefined, alg: string): readonly VerificationKey[] {
    return this.#set !== undefined && this.isUsable(this.#options.clock.now()) ? this.#set.select(kid, alg) : NONE
  }

  stateAt(nowMs: number, isRefreshing: boolean): JwksState {
    if (this.#set === undefined) return 'empty'
    if (nowMs >= this.#usableUntilMs) return 'expired'
    if (nowMs >= this.#freshUntilMs) return 'stale'
    return isRefreshing ? 'refreshing' : 'fresh'
  }

  ageSeconds(nowMs: number): number | undefined {
    if (this.#confirmedMs === undefined) return undefined
    return Math.round(Math.max(0, nowMs - this.#confirmedMs) / 1000)
  }

  confirm(parsed: ParsedKeys, lifetimeMs: number): boolean {
    const nowMs = this.#options.clock.now()
    this.#confirmedMs = nowMs
    this.#useUntil(nowMs + lifetimeMs)
    return this.#replace(parsed)
  }

  seed(parsed: ParsedKeys): boolean {
    this.#useUntil(this.#options.clock.now())
    return this.#replace(parsed)
  }

  soFar(): KeysSoFar | undefined {
    if (this.#set === undefined) return undefined
    return {
      set: this.#set,
      skipped: this.#skipped,
      confirmedMs: this.#confirmedMs,
      freshUntilMs: this.#freshUntilMs,
    }
  }

  #takeOver({ set, skipped, confirmedMs, freshUntilMs }: KeysSoFar): void {
    this.#set = set
    this.#skipped = skipped
    this.#confirmedMs = confirmedMs
    this.#useUntil(Math.min(freshUntilMs, (confirmedMs ?? freshUntilMs) + this.#options.refreshIntervalMs))
  }

  #useUntil(freshUntilMs: number): void {
    this.#freshUntilMs = freshUntilMs
    this.#usableUntilMs = freshUntilMs + this.#options.maxStaleMs
  }

  #replace(parsed: ParsedKeys): boolean {
    const before = this.#set
    const skipped = JSON.stringify(parsed.skipped)
    const set = createKeySet(parsed, before)
    const same =
      before !== undefined && before.size === set.size && [...set.byId.keys()].every((id) => before.byId.has(id))
    const changed = !same || skipped !== this.#skipped
    this.#set = set
    this.#skipped = skipped
    return changed
  }
}
