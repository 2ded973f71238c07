import type { TokenEndpointResponse } from 'oauth4webapi'
import { describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import { createSpender, type Sharing, type Spend, type Spender } from '../../../src/helper/spend.ts'
import { createMemoryStore } from '../../../src/store/memory.ts'
import { StoreError, type Store } from '../../../src/store/store.ts'
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts'

const LEASE_MS = 45_000

/** A store whose commands can be made to fail: before they are carried out, or after, when only the reply is lost. */
interface Unreliable extends Store {
  failing: 'before' | 'after' | undefined
  /** Commands that fail; all of them unless named. */
  only: readonly (keyof Store)[] | undefined
  /** Every value it was given. */
  readonly written: string[]
}

function createUnreliable(clock: FakeClock): Unreliable {
  const inner = createMemoryStore({ clock })
  const wrap =
    <A extends unknown[], R>(name: keyof Store, command: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const fails = store.failing !== undefined && (store.only?.includes(name) ?? true)
      store.written.push(...args.map(String))
      if (fails && store.failing === 'before') throw new StoreError('ECONNREFUSED', true)
      const result = await command(...args)
      if (fails) throw new StoreError('timeout', false)
      return result
    }
  const store: Unreliable = {
    failing: undefined,
    only: undefined,
    written: [],
    get: wrap('get', inner.get),
    set: wrap('set', inner.set),
    getOrSet: wrap('getOrSet', inner.getOrSet),
    replaceIfEqual: wrap('replaceIfEqual', inner.replaceIfEqual),
    deleteIfEqual: wrap('deleteIfEqual', inner.deleteIfEqual),
    status: inner.status,
    close: inner.close,
  }
  return store
}

interface Counts {
  coalesced: number
  replayed: number
  unshared: number
}

function setUp() {
  const clock = createFakeClock()
  const store = createUnreliable(clock)
  const replica = () => {
    const counts: Counts = { coalesced: 0, replayed: 0, unshared: 0 }
    const spender = createSpender({
      clock,
      onCoalesced: () => void (counts.coalesced += 1),
      onReplayed: () => void (counts.replayed += 1),
      onUnshared: () => void (counts.unshared += 1),
    })
    return { spender, counts }
  }
  const sharing = (onFailure: Sharing['onFailure'] = 'local'): Sharing => ({ store, onFailure, leaseMs: LEASE_MS })
  return { clock, store, replica, sharing, provider: createProvider() }
}

/** A provider whose answers are given by hand. */
function createProvider() {
  const waiting: PromiseWithResolvers<TokenEndpointResponse>[] = []
  let count = 0
  return {
    runs: () => count,
    run: () => {
      count += 1
      const answer = Promise.withResolvers<TokenEndpointResponse>()
      waiting.push(answer)
      return answer.promise
    },
    answer: (name = `t${count}`) => void waiting.shift()?.resolve(tokensOf(name)),
    fail: (error: Error) => void waiting.shift()?.reject(error),
  }
}

const tokensOf = (name: string) => ({
  access_token: `access-${name}`,
  refresh_token: `refresh-${name}`,
  token_type: 'bearer' as const,
})

const of = (run: Spend['run'], more: Partial<Spend> = {}): Spend => ({
  client: 'web',
  caller: 'a',
  credential: 'credential-1',
  parameters: [],
  replayWindowMs: 0,
  run,
  ...more,
})

/** Lets everything happen that waits for nothing. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i += 1) await new Promise((resolve) => setImmediate(resolve))
}

async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 250) {
    clock.advance(Math.min(250, ms - passed))
    await settle()
  }
}

const refused = new GrantError('refused_by_issuer', {
  status: 400,
  error: 'invalid_grant',
  description: 'gone',
  members: { mfa_token: 'm' },
  headers: { 'retry-after': '7' },
  detail: { error: 'invalid_grant' },
})

const outcomeOf = (promise: Promise<TokenEndpointResponse>) => {
  const outcome: { value?: TokenEndpointResponse; error?: GrantError } = {}
  promise.then(
    (value) => (outcome.value = value),
    (error: unknown) => (outcome.error = error as GrantError),
  )
  return outcome
}

describe('spends of one grant at once', () => {
  it('become one, and all get its answer', async () => {
    const { replica, provider } = setUp()
    const { spender, counts } = replica()
    const all = Array.from({ length: 50 }, () => spender.spend(of(provider.run)))
    await settle()
    expect(provider.runs()).toBe(1)
    provider.answer()
    expect(new Set(await Promise.all(all))).toEqual(new Set([tokensOf('t1')]))
    expect(counts).toEqual({ coalesced: 49, replayed: 0, unshared: 0 })
  })

  it('fail with one error', async () => {
    const { replica, provider } = setUp()
    const { spender } = replica()
    const all = [1, 2, 3].map(() => outcomeOf(spender.spend(of(provider.run))))
    await settle()
    provider.fail(refused)
    await settle()
    expect(all.map(({ error }) => error)).toEqual([refused, refused, refused])
    outcomeOf(spender.spend(of(provider.run)))
    await settle()
    expect(provider.runs()).toBe(2)
  })

  it.each<[string, Partial<Spend>]>([
    ['another credential', { credential: 'credential-2' }],
    ['another client', { client: 'native' }],
    ['other parameters', { parameters: ['x'.repeat(5000)] }],
  ])('are two with %s', async (_what, other) => {
    const { replica, provider } = setUp()
    const { spender } = replica()
    void spender.spend(of(provider.run))
    void spender.spend(of(provider.run, other))
    await settle()
    expect(provider.runs()).toBe(2)
  })

  it('are one for two callers: each of them holds the grant', async () => {
    const { replica, provider } = setUp()
    const { spender } = replica()
    const both = [spender.spend(of(provider.run)), spender.spend(of(provider.run, { caller: 'b' }))]
    await settle()
    provider.answer()
    expect(await Promise.all(both)).toEqual([tokensOf('t1'), tokensOf('t1')])
  })
})

async function spendAtOnce(
  spender: Spender,
  provider: ReturnType<typeof createProvider>,
  spend: Spend,
  sharing?: Sharing,
) {
  const outcome = outcomeOf(spender.spend(spend, sharing))
  await settle()
  provider.answer()
  await settle()
  return outcome
}

describe.each([false, true])('a late duplicate (replicas share a store: %s)', (isShared) => {
  const windowMs = 10_000
  const start = () => {
    const { clock, store, replica, sharing, provider } = setUp()
    const [first, second] = [replica(), replica()]
    const through = isShared ? sharing() : undefined
    const late = isShared ? second : first
    return { clock, store, provider, first, late, through }
  }

  it('within the window gets the same answer, and nothing is spent', async () => {
    const { clock, provider, first, late, through } = start()
    await spendAtOnce(first.spender, provider, of(provider.run, { replayWindowMs: windowMs }), through)
    await pass(clock, 9_900)
    const again = await spendAtOnce(late.spender, provider, of(provider.run, { replayWindowMs: windowMs }), through)
    expect(again.value).toEqual(tokensOf('t1'))
    expect(provider.runs()).toBe(1)
    expect(late.counts.replayed).toBe(1)
  })

  it.each<[string, number, Partial<Spend>]>([
    ['after the window', 10_000, {}],
    ['of another caller', 100, { caller: 'b' }],
    ['with other parameters', 100, { parameters: ['x'] }],
    ['of a client without a window', 100, { replayWindowMs: 0 }],
  ])('%s is spent', async (_what, afterMs, other) => {
    const { clock, provider, first, late, through } = start()
    const spend = of(provider.run, { replayWindowMs: windowMs })
    await spendAtOnce(first.spender, provider, spend, through)
    await pass(clock, afterMs)
    const again = await spendAtOnce(late.spender, provider, { ...spend, ...other }, through)
    expect(again.value).toEqual(tokensOf('t2'))
    expect(late.counts.replayed).toBe(0)
  })

  it('is spent when there is no window', async () => {
    const { provider, first, late, through } = start()
    await spendAtOnce(first.spender, provider, of(provider.run), through)
    const again = await spendAtOnce(late.spender, provider, of(provider.run), through)
    expect(again.value).toEqual(tokensOf('t2'))
  })

  it('of a spend that failed is spent', async () => {
    const { provider, first, late, through } = start()
    const spend = of(provider.run, { replayWindowMs: windowMs })
    outcomeOf(first.spender.spend(spend, through))
    await settle()
    provider.fail(refused)
    await settle()
    expect((await spendAtOnce(late.spender, provider, spend, through)).value).toEqual(tokensOf('t2'))
  })

  it('of another caller that comes while it is answered gets nothing of it', async () => {
    const { provider, first, late, through } = start()
    const spend = of(provider.run, { replayWindowMs: windowMs })
    await spendAtOnce(first.spender, provider, spend, through)
    const both = [late.spender.spend(spend, through), late.spender.spend({ ...spend, caller: 'b' }, through)].map(
      outcomeOf,
    )
    await settle()
    provider.answer()
    await settle()
    expect(both.map(({ value }) => value)).toEqual([tokensOf('t1'), tokensOf('t2')])
  })
})

describe('two replicas with one grant', () => {
  it('spend it once, and both get the answer', async () => {
    const { clock, replica, sharing, provider } = setUp()
    const [a, b] = [replica(), replica()]
    const all = [a, a, b, b].map(({ spender }) => outcomeOf(spender.spend(of(provider.run), sharing())))
    await pass(clock, 1_000)
    expect(provider.runs()).toBe(1)
    provider.answer()
    await pass(clock, 1_000)
    expect(all.map(({ value }) => value)).toEqual(Array(4).fill(tokensOf('t1')))
    expect([a.counts.coalesced, b.counts.coalesced].toSorted()).toEqual([1, 2])
  })

  it('get the same refusal, with everything in it', async () => {
    const { clock, replica, sharing, provider } = setUp()
    const all = [replica(), replica()].map(({ spender }) => outcomeOf(spender.spend(of(provider.run), sharing())))
    await settle()
    provider.fail(refused)
    await pass(clock, 1_000)
    expect(all.map(({ error }) => ({ ...error }))).toEqual([{ ...refused }, { ...refused }])
    expect(all[1]?.error).toBeInstanceOf(GrantError)
    expect(provider.runs()).toBe(1)
  })

  it('get an error without a word of it when it was an unexpected one', async () => {
    const { clock, replica, sharing, provider } = setUp()
    const [one, other] = [replica(), replica()].map(({ spender }) =>
      outcomeOf(spender.spend(of(provider.run), sharing())),
    )
    await settle()
    provider.fail(new TypeError('secret detail'))
    await pass(clock, 1_000)
    expect(one?.error).toBeInstanceOf(TypeError)
    expect(other?.error).toMatchObject({ code: 'internal_error' })
    expect(JSON.stringify({ ...other?.error })).not.toContain('secret detail')
  })

  it('are not in the way of each other with two grants', async () => {
    const { replica, sharing, provider } = setUp()
    outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    outcomeOf(replica().spender.spend(of(provider.run, { credential: 'credential-2' }), sharing()))
    await settle()
    expect(provider.runs()).toBe(2)
  })

  it('wait for an issuer that takes longer than a lease', async () => {
    const { clock, replica, sharing, provider } = setUp()
    const [one, other] = [replica(), replica()].map(({ spender }) =>
      outcomeOf(spender.spend(of(provider.run), sharing())),
    )
    await pass(clock, LEASE_MS + 20_000)
    const late = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await pass(clock, 1_000)
    expect(provider.runs()).toBe(1)
    provider.answer()
    await pass(clock, 1_000)
    expect([one, other, late].map((outcome) => outcome?.value)).toEqual(Array(3).fill(tokensOf('t1')))
  })

  it('when the one that spends dies: the outcome is soon unknown, and nobody spends again by itself', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    const dead = replica()
    const owner: Sharing = { ...sharing(), store: { ...store, replaceIfEqual: () => new Promise(() => undefined) } }
    outcomeOf(dead.spender.spend(of(provider.run), owner))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await pass(clock, 7_500)
    expect(waiting).toEqual({})
    await pass(clock, 2_500)
    expect(waiting.error).toMatchObject({ code: 'outcome_unknown', status: 502, detail: { reason: 'owner_silent' } })
    expect(waiting.error?.description).toContain('may be spent')
    // What it left behind lasts for as long as ever, whoever asks meanwhile.
    await pass(clock, LEASE_MS - 15_000)
    const late = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await pass(clock, 12_000)
    expect(late.error).toMatchObject({ code: 'outcome_unknown', detail: { reason: 'lease_ended' } })
    expect(provider.runs()).toBe(1)
  })

  it('when the one that spends dies after signs of life: they are no answer for long', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    let dead = false
    const replaceIfEqual: Store['replaceIfEqual'] = (...args) =>
      dead ? new Promise(() => undefined) : store.replaceIfEqual(...args)
    outcomeOf(replica().spender.spend(of(provider.run), { ...sharing(), store: { ...store, replaceIfEqual } }))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await pass(clock, 20_000)
    expect(waiting).toEqual({})
    dead = true
    await pass(clock, 10_000)
    expect(waiting.error).toMatchObject({ code: 'outcome_unknown', detail: { reason: 'owner_silent' } })
    expect(provider.runs()).toBe(1)
  })

  it('when the one that spends stands still for some seconds: all get the answer', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    let still = Promise.resolve()
    const replaceIfEqual: Store['replaceIfEqual'] = (...args) => still.then(() => store.replaceIfEqual(...args))
    outcomeOf(replica().spender.spend(of(provider.run), { ...sharing(), store: { ...store, replaceIfEqual } }))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    for (let i = 0; i < 3; i += 1) {
      const { promise, resolve } = Promise.withResolvers<void>()
      still = promise
      await pass(clock, 6_000)
      resolve()
      await pass(clock, 2_000)
    }
    provider.answer()
    await pass(clock, 1_000)
    expect(waiting.value).toEqual(tokensOf('t1'))
    expect(provider.runs()).toBe(1)
  })

  it('leave nothing in the store that tells a token, a grant or a caller', async () => {
    const { store, replica, sharing, provider } = setUp()
    const spend = of(provider.run, { replayWindowMs: 5_000, client: 'client-name', caller: 'caller-name' })
    await spendAtOnce(replica().spender, provider, spend, sharing())
    const written = store.written.join('\n')
    expect(written).toContain('held:')
    expect(written).toContain('done:')
    // Long words: three letters stand in a text of chance once in some hundred times.
    for (const word of ['access-', 'refresh-', 'credential', 'caller-name', 'client-name']) {
      expect(written).not.toContain(word)
      expect(Buffer.from(written, 'base64url').toString('latin1')).not.toContain(word)
    }
  })

  it('take an answer that somebody else wrote for none', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await settle()
    const set = store.set
    store.set = (key, _value, ttlMs) => set(key, Buffer.alloc(200, 7).toString('base64url'), ttlMs)
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    provider.answer()
    await pass(clock, 1_000)
    expect(waiting.error).toMatchObject({ code: 'outcome_unknown', detail: { reason: 'answer_unreadable' } })
    expect(provider.runs()).toBe(1)
  })
})

describe('a store that is gone', () => {
  it('before a spend, if told to go on: it is spent, and said so', async () => {
    const { store, replica, sharing, provider } = setUp()
    store.failing = 'before'
    const { spender, counts } = replica()
    const outcome = await spendAtOnce(spender, provider, of(provider.run), sharing('local'))
    expect(outcome.value).toEqual(tokensOf('t1'))
    expect(counts.unshared).toBe(1)
  })

  it('before a spend, if told to refuse: nothing is spent, and it may be repeated', async () => {
    const { store, replica, sharing, provider } = setUp()
    store.failing = 'before'
    const { spender } = replica()
    const outcome = await spendAtOnce(spender, provider, of(provider.run), sharing('refuse'))
    expect(outcome.error).toMatchObject({
      code: 'store_unavailable',
      status: 503,
      error: 'temporarily_unavailable',
      headers: { 'retry-after': '1' },
      detail: { reason: 'ECONNREFUSED' },
    })
    expect(outcome.error?.description).toContain('was not spent')
    expect(provider.runs()).toBe(0)
    store.failing = undefined
    expect((await spendAtOnce(spender, provider, of(provider.run), sharing('refuse'))).value).toEqual(tokensOf('t1'))
  })

  it('still answers many callers of one replica from one spend', async () => {
    const { store, replica, sharing, provider } = setUp()
    store.failing = 'before'
    const { spender } = replica()
    const all = Array.from({ length: 10 }, () => spender.spend(of(provider.run), sharing()))
    await settle()
    provider.answer()
    expect(new Set(await Promise.all(all)).size).toBe(1)
    expect(provider.runs()).toBe(1)
  })

  it('and replays from the memory of the replica that spent', async () => {
    const { store, replica, sharing, provider } = setUp()
    const { spender, counts } = replica()
    const spend = of(provider.run, { replayWindowMs: 5_000 })
    await spendAtOnce(spender, provider, spend, sharing())
    store.failing = 'before'
    expect((await spendAtOnce(spender, provider, spend, sharing())).value).toEqual(tokensOf('t1'))
    expect(counts.replayed).toBe(1)
  })

  it('in the middle: callers of the replica that spends get their answer at once', async () => {
    const { store, replica, sharing, provider } = setUp()
    const mine = outcomeOf(replica().spender.spend(of(provider.run), sharing('refuse')))
    await settle()
    store.failing = 'after'
    provider.answer()
    await settle()
    expect(mine.value).toEqual(tokensOf('t1'))
  })

  it('in the middle, and back: those who waited get the answer', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await settle()
    store.failing = 'before'
    provider.answer()
    await pass(clock, 8_000)
    expect(waiting).toEqual({})
    store.failing = undefined
    await pass(clock, 2_000)
    expect(waiting.value).toEqual(tokensOf('t1'))
    expect(provider.runs()).toBe(1)
  })

  it('in the middle, and back without its memory: the lease is set again, and the answer arrives', async () => {
    const { clock, replica, sharing, provider } = setUp()
    const [before, after] = [createMemoryStore({ clock }), createMemoryStore({ clock })]
    let current = before
    const store: Store = {
      get: (...args) => current.get(...args),
      set: (...args) => current.set(...args),
      getOrSet: (...args) => current.getOrSet(...args),
      replaceIfEqual: (...args) => current.replaceIfEqual(...args),
      deleteIfEqual: (...args) => current.deleteIfEqual(...args),
      status: () => current.status(),
      close: () => current.close(),
    }
    const through = { ...sharing(), store }
    outcomeOf(replica().spender.spend(of(provider.run), through))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), through))
    await pass(clock, 2_000)
    current = after
    await pass(clock, 2_000)
    const late = outcomeOf(replica().spender.spend(of(provider.run), through))
    await pass(clock, 2_000)
    provider.answer()
    await pass(clock, 1_000)
    expect([waiting.value, late.value]).toEqual([tokensOf('t1'), tokensOf('t1')])
    expect(provider.runs()).toBe(1)
  })

  it('in the middle for longer than an owner may be silent, and back for the owner last: that is no silence', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    let away = false
    const through =
      <A extends unknown[], R>(command: (...args: A) => Promise<R>) =>
      (...args: A): Promise<R> =>
        away ? Promise.reject(new StoreError('timeout', false)) : command(...args)
    const owners = { ...store, set: through(store.set), replaceIfEqual: through(store.replaceIfEqual) }
    outcomeOf(replica().spender.spend(of(provider.run), { ...sharing(), store: owners }))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await pass(clock, 3_000)
    ;[away, store.failing] = [true, 'before']
    await pass(clock, 20_000)
    store.failing = undefined
    await pass(clock, 5_000)
    away = false
    await pass(clock, 5_000)
    expect(waiting).toEqual({})
    provider.answer()
    await pass(clock, 1_000)
    expect(waiting.value).toEqual(tokensOf('t1'))
    expect(provider.runs()).toBe(1)
  })

  it('after it said that another replica spends: that is not doubted, whatever is to be done without a store', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await settle()
    store.failing = 'before'
    store.only = ['get']
    const late = outcomeOf(replica().spender.spend(of(provider.run), sharing('local')))
    await pass(clock, 40_000)
    expect(late.error).toMatchObject({ code: 'outcome_unknown' })
    expect(provider.runs()).toBe(1)
  })

  it('for half a minute: those who wait are told that the outcome is unknown', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    outcomeOf(replica().spender.spend(of(provider.run), sharing()))
    await settle()
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing('local')))
    await settle()
    store.failing = 'before'
    await pass(clock, 25_000)
    expect(waiting).toEqual({})
    await pass(clock, 15_000)
    expect(waiting.error).toMatchObject({ code: 'outcome_unknown', detail: { reason: 'store_ECONNREFUSED' } })
    expect(provider.runs()).toBe(1)
  })

  it('with the reply to a lease that it took, if told to go on: other replicas wait for the answer', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    store.failing = 'after'
    store.only = ['getOrSet']
    const { spender, counts } = replica()
    const mine = outcomeOf(spender.spend(of(provider.run), sharing('local')))
    await settle()
    store.failing = undefined
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing('local')))
    await pass(clock, 1_000)
    provider.answer()
    await pass(clock, 1_000)
    expect([mine.value, waiting.value]).toEqual([tokensOf('t1'), tokensOf('t1')])
    expect(provider.runs()).toBe(1)
    expect(counts.unshared).toBe(1)
  })

  it('with the reply to a lease that it took, if told to refuse: it is taken back, and nobody is left waiting', async () => {
    const { clock, store, replica, sharing, provider } = setUp()
    store.failing = 'after'
    const refusedHere = outcomeOf(replica().spender.spend(of(provider.run), sharing('refuse')))
    await settle()
    expect(refusedHere.error).toMatchObject({ code: 'store_unavailable' })
    store.failing = undefined
    const waiting = outcomeOf(replica().spender.spend(of(provider.run), sharing('refuse')))
    await pass(clock, 2_000)
    expect(waiting.error?.code ?? 'spends').toMatch(/store_unavailable|spends/)
    const next = await spendAtOnce(
      replica().spender,
      provider,
      of(provider.run, { credential: 'credential-1' }),
      sharing(),
    )
    await pass(clock, 1_000)
    expect(next.value ?? waiting.value).toEqual(tokensOf('t1'))
    expect(provider.runs()).toBe(1)
  })
})

describe('closing', () => {
  it('waits for what is under way, and then knows nothing any more', async () => {
    const { replica, provider } = setUp()
    const { spender } = replica()
    const spend = of(provider.run, { replayWindowMs: 60_000 })
    const outcome = outcomeOf(spender.spend(spend))
    await settle()
    let closed = false
    void spender.close(10_000).then(() => (closed = true))
    await settle()
    expect(closed).toBe(false)
    provider.answer()
    await settle()
    expect(closed).toBe(true)
    expect(outcome.value).toEqual(tokensOf('t1'))
    expect((await spendAtOnce(spender, provider, spend)).value).toEqual(tokensOf('t2'))
  })

  it('waits no longer than it may', async () => {
    const { replica, provider } = setUp()
    const { spender } = replica()
    outcomeOf(spender.spend(of(provider.run)))
    await settle()
    await expect(spender.close(1)).resolves.toBeUndefined()
  })
})
