import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import type { Clock } from '../util/clock.ts'
import { createSingleFlight } from '../util/single-flight.ts'
import { createSpendNames, type SpendIdentity } from './answer.ts'
import {
  awaitAnswer,
  LeaseFailure,
  spendAsOwner,
  takePlace,
  withdraw,
  type LeasedSpend,
  type LeaseOptions,
  type Place,
} from './lease.ts'

/** A grant to spend. */
export interface Spend extends SpendIdentity {
  /** Authenticated name of the caller. */
  readonly caller: string
  /** How long the answer is given again to the same caller with the same request, in milliseconds; 0 for not at all. */
  readonly replayWindowMs: number
  /** Sends and validates. Does not depend on whoever waits for it. */
  readonly run: () => Promise<TokenEndpointResponse>
  /** Called when the answer is one that was got for another request: under way at the same time, or before. */
  readonly onShared?: (by: 'coalesced' | 'replayed') => void
}

/** What replicas share. */
export interface Sharing {
  readonly store: Store
  /** Without the store: spend all the same, as if there were no other replica, or refuse. */
  readonly onFailure: 'local' | 'refuse'
  /** Longer than any spend takes, in milliseconds. */
  readonly leaseMs: number
}

export interface Spender {
  /**
   * Spends a grant, unless that is being done, here or at another replica, or was done within the replay window: then the
   * answer is the same.
   *
   * @param sharing - absent when there are no other replicas to agree with
   * @throws GrantError whatever the spend throws, for all who asked; `outcome_unknown` when another replica was spending and
   * left no answer; `store_unavailable` (not spent)
   */
  spend(spend: Spend, sharing?: Sharing): Promise<TokenEndpointResponse>
  /** Resolves when nothing is under way any more, or after a time in milliseconds. Wipes what was kept. */
  close(timeoutMs: number): Promise<void>
}

export interface SpenderOptions {
  readonly clock: Clock
  /** A caller got the answer of a spend that was under way already. */
  readonly onCoalesced: (client: string) => void
  /** A caller got the answer of a spend that was over already. */
  readonly onReplayed: (client: string) => void
  /** A grant is spent without the store: another replica may spend it, too. */
  readonly onUnshared: (client: string) => void
}

/**
 * Creates the spender. Concurrent spends of one grant become one request to the issuer, whose answer all callers get: with
 * rotation, a second request would revoke the whole family (RFC 9700 §4.14.2). One for the whole process, whatever is
 * configured.
 */
export function createSpender(options: SpenderOptions): Spender {
  return new OneSpender(options)
}

/** What came of a request, for all who joined it. */
interface Flight {
  readonly tokens: TokenEndpointResponse
  /** Of whom that started it. */
  readonly caller: string
  /** Whether nothing was spent, because that was done before. */
  readonly again: boolean
}

/** A spend with what it takes to do it. */
interface Asked extends LeasedSpend {
  readonly client: string
  /** Counts an answer that was got for another request, and tells whoever asked. */
  readonly tell: (by: 'coalesced' | 'replayed') => void
}

/** The attempt under which an answer is kept in this process. */
const HERE = 'here'
/** How long the end of the process waits for the store. */
const REST_MS = 1_000

class OneSpender implements Spender {
  readonly #options: SpenderOptions
  readonly #share = createSingleFlight<Flight>()
  /** Answers within their replay window, sealed with their credentials. */
  readonly #memory: Store
  readonly #underWay = new Set<Promise<unknown>>()
  /** Answers and attempts that the store did not take at first. */
  readonly #rests = new Set<Promise<unknown>>()

  constructor(options: SpenderOptions) {
    this.#options = options
    this.#memory = createMemoryStore({ clock: options.clock })
  }

  async spend(spend: Spend, sharing?: Sharing): Promise<TokenEndpointResponse> {
    const { client, caller, replayWindowMs, run } = spend
    const names = createSpendNames(spend)
    const tell: Asked['tell'] = (by) => {
      const { onCoalesced, onReplayed } = this.#options
      if (by === 'coalesced') onCoalesced(client)
      else onReplayed(client)
      spend.onShared?.(by)
    }
    for (;;) {
      let started = false
      const promise = this.#share(names.lease, () => {
        started = true
        return track(this.#underWay, this.#begin({ names, client, caller, replayWindowMs, run, tell }, sharing))
      })
      if (!started) tell('coalesced')
      const flight = await promise
      // What is given again is for the one caller that had it before, and for nobody who joined that.
      if (started || !flight.again || flight.caller === caller) return flight.tokens
    }
  }

  async close(timeoutMs: number): Promise<void> {
    await settled(this.#underWay, timeoutMs)
    // What is left for other replicas waits for a store that may be away for long.
    await settled(this.#rests, Math.min(timeoutMs, REST_MS))
    await this.#memory.close()
  }

  async #begin(asked: Asked, sharing: Sharing | undefined): Promise<Flight> {
    const { caller, tell } = asked
    const known = await this.#recall(asked)
    if (known !== undefined) {
      tell('replayed')
      return { tokens: known, caller, again: true }
    }
    const remembered: Asked = { ...asked, run: () => this.#runAndRemember(asked) }
    if (sharing !== undefined) return this.#beginShared(remembered, sharing)
    return { tokens: await remembered.run(), caller, again: false }
  }

  async #beginShared(asked: Asked, sharing: Sharing): Promise<Flight> {
    const options = { store: sharing.store, leaseMs: sharing.leaseMs, clock: this.#options.clock }
    const { caller, tell } = asked
    const place = await this.#takePlace(asked, sharing, options)
    if (place.role === 'late') {
      tell('replayed')
      return { tokens: place.tokens, caller, again: true }
    }
    if (place.role === 'waiter') {
      tell('coalesced')
      return { tokens: await awaitAnswer(asked, place.id, options), caller, again: false }
    }
    const tokens = await spendAsOwner(asked, place.attempt, options, (rest) => void track(this.#rests, rest))
    return { tokens, caller, again: false }
  }

  async #takePlace(asked: Asked, { onFailure }: Sharing, options: LeaseOptions): Promise<Place> {
    try {
      return await takePlace(asked, options)
    } catch (error) {
      if (!(error instanceof LeaseFailure)) throw error
      if (onFailure === 'local') {
        this.#options.onUnshared(asked.client)
        return { role: 'owner', attempt: error.attempt }
      }
      const reason = storeUnavailable(error.code)
      void track(this.#rests, withdraw(asked, error.attempt, reason, options))
      throw reason
    }
  }

  async #recall({ names, caller, replayWindowMs }: LeasedSpend): Promise<TokenEndpointResponse | undefined> {
    if (replayWindowMs === 0) return undefined
    const text = await this.#memory.get(names.answer(HERE)).catch(() => undefined)
    const opened = text === undefined ? undefined : names.open(HERE, text)
    return opened?.caller === caller && 'tokens' in opened.answer ? opened.answer.tokens : undefined
  }

  async #runAndRemember({ names, caller, replayWindowMs, run }: LeasedSpend): Promise<TokenEndpointResponse> {
    const tokens = await run()
    if (replayWindowMs > 0) {
      const sealed = names.seal(HERE, caller, { tokens })
      await this.#memory.set(names.answer(HERE), sealed, replayWindowMs).catch(() => undefined)
    }
    return tokens
  }
}

function track<T>(all: Set<Promise<unknown>>, promise: Promise<T>): Promise<T> {
  const end = () => void all.delete(promise)
  all.add(promise)
  promise.then(end, end)
  return promise
}

/** Resolves when none is left, or after a time. */
async function settled(all: ReadonlySet<Promise<unknown>>, timeoutMs: number): Promise<void> {
  const timeout = new Promise<void>((resolve) => void setTimeout(resolve, timeoutMs).unref())
  while (all.size > 0) {
    if ((await Promise.race([Promise.allSettled([...all]), timeout])) === undefined) return
  }
}

function storeUnavailable(reason: string): GrantError {
  return new GrantError('store_unavailable', {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'This server cannot agree with its replicas at the moment; the grant was not spent.',
    headers: { 'retry-after': '1' },
    detail: { reason },
  })
}
