import { randomBytes } from 'node:crypto'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import { StoreError, type Store } from '../store/store.ts'
import type { Clock } from '../util/clock.ts'
import type { Answer, SpendNames } from './answer.ts'

/** One spend, as far as replicas must agree on it. */
export interface LeasedSpend {
  readonly names: SpendNames
  readonly caller: string
  /** How long the answer is given again to the same caller, in milliseconds; 0 for not at all. */
  readonly replayWindowMs: number
  /** Spends. Called once at most. */
  readonly run: () => Promise<TokenEndpointResponse>
}

export interface LeaseOptions {
  readonly store: Store
  readonly clock: Clock
  /** Longer than any spend takes, in milliseconds: what a replica that dies leaves behind is over then. */
  readonly leaseMs: number
}

/** An attempt to spend, made by one replica. */
export interface Attempt {
  readonly id: string
  /** Whether the store may hold its lease, so that another replica may wait for it. */
  mayBeKnown: boolean
}

/** Who spends. */
export type Place =
  | { readonly role: 'owner'; readonly attempt: Attempt }
  /** Another replica is at it. */
  | { readonly role: 'waiter'; readonly id: string }
  /** Another replica did so a short time ago, for the same caller. */
  | { readonly role: 'late'; readonly tokens: TokenEndpointResponse }

/** The store failed before it was known who spends. It may carry out later what it did not answer. */
export class LeaseFailure extends Error {
  readonly attempt: Attempt
  readonly code: string

  constructor(id: string, { code, unsent }: StoreError) {
    super(`no lease: ${code}`)
    this.attempt = { id, mayBeKnown: !unsent }
    this.code = code
  }
}

/** How long an answer waits for replicas that were waiting for it. */
const ANSWER_MS = 10_000
/** How often the owner looks after its lease, which a store that was restarted has lost, and shows that it lives. */
const RENEWAL_MS = 1_000
/** How long a lease must be gone before its owner is believed to be: more than two of its renewals. */
const GONE_MS = 2_500
/**
 * How long an owner may show no sign of life before nobody waits for it any more: it may have to connect to the store anew,
 * which takes 5 s at most, and then its next renewal. Counted while the store answers, by whoever waits.
 */
const SILENT_MS = 8_000
/** A store may keep a sign of life for longer than it counts: only that it changes tells anything. */
const PULSE_MS = 10_000
/** How long a store may be away before nobody waits for it any more. */
const STORE_GONE_MS = 30_000
const POLL = { firstMs: 20, mostMs: 250 }

const held = (id: string) => `held:${id}`
const done = (id: string) => `done:${id}`

/**
 * Finds out who spends: sets the lease unless there is one.
 *
 * @throws LeaseFailure when the store does not say; GrantError `outcome_unknown` when it said that the grant was just spent,
 * and then failed
 */
export async function takePlace(spend: LeasedSpend, { store, leaseMs }: LeaseOptions): Promise<Place> {
  const { names } = spend
  const id = randomBytes(16).toString('base64url')
  const owner = { role: 'owner', attempt: { id, mayBeKnown: true } } as const
  const ask = async <T>(command: Promise<T>): Promise<T> => {
    try {
      return await command
    } catch (error) {
      throw error instanceof StoreError ? new LeaseFailure(id, error) : error
    }
  }
  for (let tries = 0; tries < 5; tries += 1) {
    const current = await ask(store.getOrSet(names.lease, held(id), leaseMs))
    if (current === undefined) return owner
    if (current.startsWith('held:')) return { role: 'waiter', id: current.slice('held:'.length) }
    const tokens = await readAgain(spend, store, current.slice('done:'.length))
    if (tokens !== undefined) return { role: 'late', tokens }
    if (await ask(store.replaceIfEqual(names.lease, current, held(id), leaseMs))) return owner
  }
  throw outcomeUnknown('contention')
}

/** The tokens of a spend that is over, if they may be given once more: within its window, to the caller it was for. */
async function readAgain(
  { names, caller, replayWindowMs }: LeasedSpend,
  store: Store,
  id: string,
): Promise<TokenEndpointResponse | undefined> {
  if (replayWindowMs === 0) return undefined
  const text = await store.get(names.answer(id)).catch(toUnknown)
  const opened = text === undefined ? undefined : names.open(id, text)
  return opened?.caller === caller && 'tokens' in opened.answer ? opened.answer.tokens : undefined
}

/**
 * Waits for the answer of another replica. Never spends: what a replica that died leaves behind keeps everybody from that for
 * as long as its lease lasts.
 *
 * @throws GrantError the same that the other replica got; `outcome_unknown` when it left without an answer, or shows no sign
 * of life
 */
export async function awaitAnswer(
  { names }: LeasedSpend,
  id: string,
  { store, clock, leaseMs }: LeaseOptions,
): Promise<TokenEndpointResponse> {
  let pauseMs = POLL.firstMs
  let [goneMs, silentMs, storeGoneMs] = [0, 0, 0]
  let pulse: string | undefined
  let reason = 'lease_ended'
  const isOver = (waitedMs: number) =>
    waitedMs >= 2 * leaseMs || goneMs >= GONE_MS || silentMs >= SILENT_MS || storeGoneMs >= STORE_GONE_MS
  for (let waitedMs = 0; !isOver(waitedMs); waitedMs += pauseMs) {
    try {
      // In this order: an answer is there before its lease ends.
      const isHeld = (await store.get(names.lease)) === held(id)
      const text = await store.get(names.answer(id))
      if (text !== undefined) return unwrap(names.open(id, text)?.answer)
      const beat = await store.get(names.pulse(id))
      goneMs = isHeld ? 0 : goneMs + pauseMs
      silentMs = beat === undefined || beat === pulse ? silentMs + pauseMs : 0
      pulse = beat ?? pulse
      storeGoneMs = 0
      reason = isHeld ? 'owner_silent' : 'lease_ended'
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      storeGoneMs += pauseMs
      reason = `store_${error.code}`
    }
    await new Promise<void>((resolve) => void clock.after(pauseMs, resolve))
    pauseMs = Math.min(POLL.mostMs, pauseMs * 1.5)
  }
  throw outcomeUnknown(reason)
}

function unwrap(answer: Answer | undefined): TokenEndpointResponse {
  if (answer === undefined) throw outcomeUnknown('answer_unreadable')
  if ('error' in answer) throw answer.error
  return answer.tokens
}

/**
 * Spends as the owner of a lease, keeps the lease meanwhile, and leaves the answer for the replicas that wait.
 *
 * @param onEnded - called with what is left to do when the store did not take the answer: to be tried in the background
 */
export async function spendAsOwner(
  spend: LeasedSpend,
  attempt: Attempt,
  options: LeaseOptions,
  onEnded: (rest: Promise<void>) => void,
): Promise<TokenEndpointResponse> {
  const endRenewal = renew(spend, attempt, options)
  let answer: Answer
  let result: PromiseSettledResult<TokenEndpointResponse>
  try {
    const tokens = await spend.run()
    answer = { tokens }
    result = { status: 'fulfilled', value: tokens }
  } catch (error) {
    answer = { error: error instanceof GrantError ? error : unexpected() }
    result = { status: 'rejected', reason: error }
  }
  await endRenewal()
  const leave = () => leaveAnswer(spend, attempt.id, answer, options.store)
  await leave().catch(() => {
    if (attempt.mayBeKnown) onEnded(persist(leave, options))
  })
  if (result.status === 'rejected') throw result.reason
  return result.value
}

/**
 * Takes back an attempt that was not made, should the store have taken it or take it yet: whoever waits for it gets the
 * reason.
 */
export async function withdraw(
  spend: LeasedSpend,
  { id, mayBeKnown }: Attempt,
  reason: GrantError,
  options: LeaseOptions,
): Promise<void> {
  if (mayBeKnown) await persist(() => leaveAnswer(spend, id, { error: reason }, options.store), options)
}

/** First the answer, then the end of the lease. Only tokens are given again to those who come late. */
async function leaveAnswer(
  { names, caller, replayWindowMs }: LeasedSpend,
  id: string,
  answer: Answer,
  store: Store,
): Promise<void> {
  await store.set(names.answer(id), names.seal(id, caller, answer), Math.max(ANSWER_MS, replayWindowMs))
  if (replayWindowMs > 0 && 'tokens' in answer) {
    await store.replaceIfEqual(names.lease, held(id), done(id), replayWindowMs)
  } else await store.deleteIfEqual(names.lease, held(id))
}

/**
 * Keeps a lease while its spend is under way, sets it again in a store that lost it, and shows whoever waits that the owner
 * lives. @returns what ends that
 */
function renew({ names }: LeasedSpend, attempt: Attempt, { store, clock, leaseMs }: LeaseOptions): () => Promise<void> {
  let underWay = Promise.resolve()
  let callOff: () => void
  let ended = false
  let beats = 0
  const value = held(attempt.id)
  const once = async () => {
    const kept = await store.replaceIfEqual(names.lease, value, value, leaseMs)
    if (ended) return
    if (!kept) {
      attempt.mayBeKnown = true
      await store.getOrSet(names.lease, value, leaseMs)
    }
    beats += 1
    await store.set(names.pulse(attempt.id), String(beats), PULSE_MS)
  }
  const next = () => {
    callOff = clock.after(RENEWAL_MS, () => {
      underWay = once()
        .catch(() => undefined)
        .then(() => (ended ? undefined : next()))
    })
  }
  next()
  return () => {
    ended = true
    callOff()
    // One that is on its way would set the lease again behind the answer.
    return underWay
  }
}

/** Tries until it succeeds or the lease would be over anyway. */
async function persist(run: () => Promise<void>, { clock, leaseMs }: LeaseOptions): Promise<void> {
  let pauseMs = 100
  for (let waitedMs = 0; waitedMs < leaseMs; waitedMs += pauseMs) {
    try {
      return await run()
    } catch (error) {
      if (error instanceof StoreError && error.code === 'closed') return
    }
    pauseMs = Math.min(1_000, pauseMs * 2)
    await new Promise<void>((resolve) => void clock.after(pauseMs, resolve))
  }
}

function toUnknown(error: unknown): never {
  throw error instanceof StoreError ? outcomeUnknown(`store_${error.code}`) : error
}

function outcomeUnknown(reason: string): GrantError {
  return new GrantError('outcome_unknown', {
    status: 502,
    error: 'temporarily_unavailable',
    description: 'Another replica was spending the grant, and how that ended is not known; the grant may be spent.',
    detail: { reason },
  })
}

function unexpected(): GrantError {
  return new GrantError('internal_error', {
    status: 500,
    error: 'server_error',
    description: 'An unexpected error; the grant may be spent.',
  })
}
