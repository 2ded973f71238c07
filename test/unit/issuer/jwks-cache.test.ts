import { afterEach, describe, expect, it, vi } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import {
  createJwksCache,
  type FetchResult,
  type JwksCache,
  type JwksCacheOptions,
  type VerificationKey,
} from '../../../src/issuer/jwks-cache.ts'
import { readJwks } from '../../../src/issuer/jwks.ts'
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts'
import { createSigningKey } from '../../fakes/signer.ts'

const first = createSigningKey('ES256', 'first')
const second = createSigningKey('ES256', 'second')

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

let cache: JwksCache | undefined
afterEach(() => cache?.close())

interface Setup {
  readonly cache: JwksCache
  readonly clock: FakeClock
  readonly fetch: ReturnType<typeof vi.fn<(conditional: boolean) => Promise<unknown>>>
  readonly results: FetchResult[]
  /** Waits until so many fetches have ended. */
  readonly settled: (count: number) => Promise<void>
  /** Moves on in steps, letting every fetch that comes due end before the next step. */
  readonly pass: (ms: number, stepMs?: number) => Promise<void>
}

/** What a fetch brings: a document, and how fresh the issuer says it is. */
type Answer = (conditional: boolean) => unknown

function setUp(answer: Answer, options: Partial<JwksCacheOptions> & { freshnessMs?: number } = {}): Setup {
  const { freshnessMs, ...more } = options
  const clock = createFakeClock()
  const results: FetchResult[] = []
  let underWay = 0
  const fetch = vi.fn(async (conditional: boolean) => {
    underWay += 1
    try {
      return { parsed: readJwks(await answer(conditional)), freshnessMs }
    } finally {
      underWay -= 1
    }
  })
  const made = createJwksCache({
    issuerName: 'main',
    fetch,
    readSeed: undefined,
    refreshIntervalMs: 10 * MINUTE,
    maxStaleMs: 24 * HOUR,
    clock,
    onFetch: (result) => results.push(result),
    ...more,
  })
  cache = made
  const settled = (count: number) => vi.waitFor(() => expect(results).toHaveLength(count))
  const pass = async (ms: number, stepMs = 5 * SECOND) => {
    for (let passed = 0; passed < ms; passed += stepMs) {
      clock.advance(Math.min(stepMs, ms - passed))
      do await new Promise((resolve) => setImmediate(resolve))
      while (underWay > 0)
    }
  }
  return { cache: made, clock, fetch, results, settled, pass }
}

const down = () => Promise.reject(new Error('down'))
const serves =
  (...keys: { jwk: object }[]): Answer =>
  () => ({ keys: keys.map(({ jwk }) => jwk) })

/** The kid that was found, or the code of the refusal. */
async function look(keys: JwksCache, kid: string | undefined, alg = 'ES256'): Promise<string> {
  try {
    return (await keys.find(kid, alg))[0]?.kid ?? 'unknown'
  } catch (error) {
    return (error as CodedError).code
  }
}

const isCurrent = ({ cache: keys, clock }: Setup, key: VerificationKey | undefined) =>
  key !== undefined && keys.isCurrent(key, clock.now())

describe('the keys of another cache', () => {
  it.each([
    [0, 'keys_unavailable'],
    [HOUR, 'first'],
  ])('are used on for as long as the own settings say: %i ms', async (maxStaleMs, afterwards) => {
    const before = setUp(serves(first))
    before.cache.start()
    await before.settled(1)
    before.cache.close()
    const after = setUp(down, { before: before.cache.soFar(), refreshIntervalMs: MINUTE, maxStaleMs })
    after.cache.start()
    await after.settled(1)
    expect(after.cache.status()).toMatchObject({ keys: 1, failures: 1 })
    expect(await look(after.cache, 'first')).toBe('first')
    await after.pass(2 * MINUTE)
    expect(await look(after.cache, 'first')).toBe(afterwards)
  })
})

describe('before the first keys', () => {
  it('many requests wait for one fetch', async () => {
    const gate = Promise.withResolvers<unknown>()
    const { cache: keys, fetch } = setUp(() => gate.promise)
    keys.start()
    const found = Promise.all(Array.from({ length: 500 }, () => look(keys, 'first')))
    gate.resolve({ keys: [first.jwk] })
    expect(new Set(await found)).toEqual(new Set(['first']))
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  it('no more than a thousand requests wait', async () => {
    const gate = Promise.withResolvers<unknown>()
    const { cache: keys } = setUp(() => gate.promise)
    keys.start()
    const waiting = Array.from({ length: 1_000 }, () => look(keys, 'first'))
    expect(await look(keys, 'first')).toBe('keys_unavailable')
    gate.resolve({ keys: [first.jwk] })
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['first']))
    expect(await look(keys, 'first')).toBe('first')
  })

  it('no request waits for longer than five seconds', async () => {
    const { cache: keys, clock } = setUp(() => new Promise(() => undefined))
    keys.start()
    const waiting = look(keys, 'first')
    clock.advance(5 * SECOND - 1)
    expect(await Promise.race([waiting, Promise.resolve('waits')])).toBe('waits')
    clock.advance(1)
    expect(await waiting).toBe('keys_unavailable')
  })

  it('a failure is answered at once and without a fetch per request', async () => {
    const { cache: keys, fetch, settled } = setUp(down)
    keys.start()
    await settled(1)
    for (let i = 0; i < 100; i += 1) expect(await look(keys, 'first')).toBe('keys_unavailable')
    expect(fetch).toHaveBeenCalledTimes(1)
    expect(keys.status()).toEqual({ state: 'empty', ageSeconds: undefined, keys: 0, failures: 1 })
  })

  it('they are asked for again by themselves, with growing pauses, until they come', async () => {
    let answer: Answer = down
    const { cache: keys, results, pass } = setUp(() => answer(true))
    keys.start()
    await pass(60 * SECOND, 100)
    // Pauses of 0.5, 1, 2, 4, 8, 10, 10, 10 … seconds, each shortened by up to a half.
    expect(results.length).toBeGreaterThanOrEqual(9)
    expect(results.length).toBeLessThanOrEqual(17)
    const pauses = results.map((result) => (result.ok ? 0 : result.retryInMs))
    expect(Math.max(...pauses)).toBeLessThanOrEqual(10 * SECOND)
    answer = serves(first)
    await pass(10 * SECOND, 100)
    expect(results.at(-1)).toMatchObject({ ok: true, source: 'issuer', changed: true, recovered: true })
    expect(keys.status()).toEqual({ state: 'fresh', ageSeconds: expect.any(Number), keys: 1, failures: 0 })
  })
})

describe('the states', () => {
  it('follow one another while the issuer is down, and go back when it is up again', async () => {
    let answer: Answer = serves(first)
    const setup = setUp((conditional) => answer(conditional))
    const { cache: keys, pass, results, fetch } = setup
    const states: string[] = []
    const note = () => {
      const { state } = keys.status()
      if (states.at(-1) !== state) states.push(state)
    }
    note()
    keys.start()
    await pass(SECOND)
    note()
    const [key] = await keys.find('first', 'ES256')
    answer = down
    for (let passed = 0; passed < 25 * HOUR; passed += MINUTE) {
      await pass(MINUTE, MINUTE)
      note()
      const usable = keys.status().state !== 'expired'
      expect(await look(keys, 'first')).toBe(usable ? 'first' : 'keys_unavailable')
      expect(isCurrent(setup, key)).toBe(usable)
    }
    expect(states).toEqual(['empty', 'fresh', 'refreshing', 'stale', 'expired'])
    // A minute apart at most, and never in a burst: about 1,500 in 25 hours.
    expect(fetch.mock.calls.length).toBeLessThan(3_500)
    answer = serves(first)
    await pass(20 * SECOND)
    expect(keys.status().state).toBe('fresh')
    expect(results.at(-1)).toMatchObject({ ok: true, changed: false, recovered: true })
    expect(isCurrent(setup, key)).toBe(true)
  })

  it('know how long the keys are used without the issuer: 24 hours past their time', async () => {
    let answer: Answer = serves(first)
    const { cache: keys, clock, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = down
    clock.advance(24 * HOUR + 10 * MINUTE - 1)
    expect(keys.status()).toMatchObject({ state: 'stale', ageSeconds: 87_000 })
    expect(await look(keys, 'first')).toBe('first')
    clock.advance(1)
    expect(keys.status().state).toBe('expired')
    expect(await look(keys, 'first')).toBe('keys_unavailable')
  })

  it('have no stale one when that is not wanted', async () => {
    let answer: Answer = serves(first)
    const { cache: keys, clock, settled } = setUp((conditional) => answer(conditional), { maxStaleMs: 0 })
    keys.start()
    await settled(1)
    answer = down
    clock.advance(10 * MINUTE - 1)
    expect(await look(keys, 'first')).toBe('first')
    clock.advance(1)
    expect(keys.status().state).toBe('expired')
  })

  it('let a request find out that the issuer is back when expired keys are all there is', async () => {
    const { cache: keys, clock, settled } = setUp(serves(first), { maxStaleMs: 0 })
    keys.start()
    await settled(1)
    // As after the machine slept: the clock went on, no timer ran.
    const late = clock.now() + 30 * HOUR
    vi.spyOn(clock, 'now').mockReturnValue(late)
    expect(keys.status().state).toBe('expired')
    expect(await look(keys, 'first')).toBe('first')
  })
})

describe('a scheduled fetch', () => {
  it.each<[string, number | undefined, number, number]>([
    ['says nothing about its freshness', undefined, 7 * MINUTE, 8.5 * MINUTE],
    ['may not be kept at all', 0, 3.5 * MINUTE, 4.25 * MINUTE],
    ['is fresh for 15 seconds', 15 * SECOND, 3.5 * MINUTE, 4.25 * MINUTE],
    ['is fresh for 8 minutes', 8 * MINUTE, 5.6 * MINUTE, 6.8 * MINUTE],
    ['is fresh for a day', 24 * HOUR, 7 * MINUTE, 8.5 * MINUTE],
  ])('comes ahead of time when the answer %s', async (_what, freshnessMs, earliest, latest) => {
    const { fetch, pass, cache: keys, settled } = setUp(serves(first), freshnessMs === undefined ? {} : { freshnessMs })
    keys.start()
    await settled(1)
    await pass(earliest - SECOND)
    expect(fetch).toHaveBeenCalledTimes(1)
    await pass(latest - earliest + 2 * SECOND)
    expect(fetch).toHaveBeenCalledTimes(2)
    expect(keys.status().state).toBe('fresh')
  })

  it('keeps no request waiting', async () => {
    const gates: PromiseWithResolvers<unknown>[] = []
    const {
      cache: keys,
      clock,
      results,
    } = setUp(() => {
      gates.push(Promise.withResolvers())
      return gates.at(-1)?.promise
    })
    keys.start()
    gates[0]?.resolve({ keys: [first.jwk] })
    await vi.waitFor(() => expect(results).toHaveLength(1))
    clock.advance(9 * MINUTE)
    expect(gates).toHaveLength(2)
    expect(keys.status().state).toBe('refreshing')
    expect(keys.find('first', 'ES256')).not.toBeInstanceOf(Promise)
  })

  it('takes away a removed key without anybody asking', async () => {
    let answer = serves(first, second)
    const setup = setUp((conditional) => answer(conditional))
    setup.cache.start()
    await setup.settled(1)
    const [key] = await setup.cache.find('second', 'ES256')
    expect(isCurrent(setup, key)).toBe(true)
    answer = serves(first)
    await setup.pass(10 * MINUTE)
    expect(isCurrent(setup, key)).toBe(false)
    expect(await look(setup.cache, 'second')).toBe('unknown')
  })

  it('leaves a key that is published again the same object', async () => {
    const setup = setUp(serves(first))
    setup.cache.start()
    await setup.settled(1)
    const [before] = await setup.cache.find('first', 'ES256')
    await setup.pass(10 * MINUTE)
    expect(setup.results).toHaveLength(2)
    expect((await setup.cache.find('first', 'ES256'))[0]).toBe(before)
    expect(setup.results[1]).toMatchObject({ ok: true, changed: false })
  })

  it('reports an odd key once, and again when the odd ones change', async () => {
    const odd = { jwk: { kty: 'LATTICE', kid: 'odd' } }
    let answer = serves(first)
    const { cache: keys, results, pass, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = serves(first, odd)
    await pass(20 * MINUTE)
    expect(results.map((result) => result.ok && result.changed)).toEqual([
      true,
      true,
      ...results.slice(2).map(() => false),
    ])
    expect(results.length).toBeGreaterThan(2)
  })

  it.each<[string, Answer]>([
    ['nothing', down],
    ['an empty set', () => ({ keys: [] })],
    ['a set of encryption keys', () => ({ keys: [{ ...first.jwk, use: 'enc' }] })],
    ['no set at all', () => 'oops'],
  ])('keeps the old keys when it brings %s', async (_what, bad) => {
    let answer: Answer = serves(first)
    const { cache: keys, pass, settled, results } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = bad
    await pass(9 * MINUTE)
    expect(results.at(-1)).toMatchObject({ ok: false, state: 'refreshing' })
    expect(await look(keys, 'first')).toBe('first')
    await pass(2 * MINUTE)
    expect(keys.status().state).toBe('stale')
    expect(await look(keys, 'first')).toBe('first')
  })

  it('asks conditionally', async () => {
    const { cache: keys, fetch, pass } = setUp(serves(first))
    keys.start()
    await pass(10 * MINUTE)
    expect(fetch.mock.calls).toEqual([[true], [true]])
  })
})

describe('an unknown kid', () => {
  it('is found at once when the issuer has just begun to use it, and asked for without condition', async () => {
    let answer = serves(first)
    const { cache: keys, fetch, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = serves(first, second)
    expect(await look(keys, 'second')).toBe('second')
    expect(fetch.mock.calls).toEqual([[true], [false]])
  })

  it('is found by all who ask at the same time, with one fetch', async () => {
    let answer = serves(first)
    const { cache: keys, fetch, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = serves(first, second)
    const found = await Promise.all(Array.from({ length: 200 }, () => look(keys, 'second')))
    expect(new Set(found)).toEqual(new Set(['second']))
    expect(fetch).toHaveBeenCalledTimes(2)
  })

  it('is asked for once more when the fetch under way began before it came', async () => {
    const gates: PromiseWithResolvers<unknown>[] = []
    const {
      cache: keys,
      clock,
      results,
    } = setUp(() => {
      gates.push(Promise.withResolvers())
      return gates.at(-1)?.promise
    })
    keys.start()
    gates[0]?.resolve({ keys: [first.jwk] })
    await vi.waitFor(() => expect(results).toHaveLength(1))
    while (gates.length < 2) clock.advance(SECOND)
    clock.advance(SECOND)
    const found = look(keys, 'second')
    gates[1]?.resolve({ keys: [first.jwk] })
    await vi.waitFor(() => expect(gates).toHaveLength(3))
    gates[2]?.resolve({ keys: [first.jwk, second.jwk] })
    expect(await found).toBe('second')
  })

  it('costs one fetch per cool-down, whatever comes', async () => {
    const { cache: keys, fetch, clock, settled } = setUp(serves(first))
    keys.start()
    await settled(1)
    for (let i = 0; i < 1_000; i += 1) expect(await look(keys, `forged-${i}`)).toBe('unknown')
    expect(fetch).toHaveBeenCalledTimes(2)
    clock.advance(10 * SECOND - 1)
    expect(await look(keys, 'forged')).toBe('unknown')
    expect(fetch).toHaveBeenCalledTimes(2)
    clock.advance(1)
    expect(await look(keys, 'forged')).toBe('unknown')
    expect(fetch).toHaveBeenCalledTimes(3)
  })

  it('costs one fetch per cool-down when they fail, too: nothing can be said about it then', async () => {
    let answer: Answer = serves(first)
    const { cache: keys, fetch, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = down
    for (let i = 0; i < 20; i += 1) expect(await look(keys, `k${i}`)).toBe('keys_unavailable')
    expect(fetch).toHaveBeenCalledTimes(2)
    expect(await look(keys, 'first')).toBe('first')
  })

  it('that the issuer does not have is not asked for again for half a minute', async () => {
    const { cache: keys, fetch, clock, settled } = setUp(serves(first))
    keys.start()
    await settled(1)
    expect(await look(keys, 'wrong')).toBe('unknown')
    for (let i = 0; i < 2; i += 1) {
      clock.advance(14 * SECOND)
      expect(keys.find('wrong', 'ES256')).toEqual([])
    }
    expect(fetch).toHaveBeenCalledTimes(2)
    clock.advance(2 * SECOND)
    expect(await look(keys, 'wrong')).toBe('unknown')
    expect(fetch).toHaveBeenCalledTimes(3)
  })

  it('does not keep the schedule from its work, however often it comes', async () => {
    let answer: Answer = serves(first, second)
    const setup = setUp((conditional) => answer(conditional))
    setup.cache.start()
    await setup.settled(1)
    // Fetches for forged kids fail, those of the schedule do not: only the latter may take the second key away.
    answer = (conditional) => (conditional ? { keys: [first.jwk] } : down())
    const [key] = await setup.cache.find('second', 'ES256')
    for (let passed = 0; passed < 10 * MINUTE && isCurrent(setup, key); passed += SECOND) {
      await look(setup.cache, `forged-${passed}`)
      await setup.pass(SECOND, SECOND)
    }
    expect(isCurrent(setup, key)).toBe(false)
    expect(setup.cache.status()).toMatchObject({ state: 'fresh', failures: 0 })
  })

  it('does not make the schedule slower to try again either', async () => {
    let answer: Answer = serves(first)
    const { cache: keys, pass, fetch, settled } = setUp((conditional) => answer(conditional))
    keys.start()
    await settled(1)
    answer = down
    for (let passed = 0; passed < 20 * MINUTE; passed += SECOND) {
      await look(keys, `forged-${passed}`)
      await pass(SECOND, SECOND)
    }
    const scheduled = fetch.mock.calls.filter(([conditional]) => conditional).length
    // After 8.5 minutes at the latest, then at least once a minute, beside 120 fetches for forged kids.
    expect(scheduled).toBeGreaterThanOrEqual(11)
    expect(keys.status().state).toBe('stale')
  })

  it('with the kid of a key for another algorithm is no reason to fetch', async () => {
    const { cache: keys, fetch, settled } = setUp(serves(first))
    keys.start()
    await settled(1)
    expect(await look(keys, 'first', 'RS256')).toBe('algorithm_not_allowed')
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  it('is none when the token has no kid and a key fits', async () => {
    const { cache: keys, settled } = setUp(serves(first, second))
    keys.start()
    await settled(1)
    expect((await keys.find(undefined, 'ES256')).map(({ kid }) => kid)).toEqual(['first', 'second'])
    expect(await look(keys, undefined, 'RS256')).toBe('unknown')
  })
})

describe('a seed file', () => {
  const seeded = (answer: Answer, maxStaleMs = 24 * HOUR) =>
    setUp(answer, { readSeed: () => Promise.resolve(readJwks({ keys: [first.jwk] })), maxStaleMs })

  it('stands in when the first fetch fails, as stale as can be, and gives way to the issuer', async () => {
    let answer: Answer = down
    const { cache: keys, results, pass, settled } = seeded((conditional) => answer(conditional))
    keys.start()
    await settled(2)
    expect(results.map(({ ok }) => ok)).toEqual([true, false])
    expect(results[0]).toMatchObject({ source: 'seed', changed: true })
    expect(keys.status()).toMatchObject({ state: 'stale', ageSeconds: undefined, keys: 1 })
    expect(await look(keys, 'first')).toBe('first')
    answer = serves(second)
    await pass(5 * SECOND, 100)
    expect(keys.status()).toMatchObject({ state: 'fresh', keys: 1 })
    expect(await look(keys, 'first')).toBe('unknown')
  })

  it('is no longer good after the longest time without the issuer', async () => {
    const { cache: keys, pass, settled } = seeded(down, HOUR)
    keys.start()
    await settled(2)
    await pass(HOUR, MINUTE)
    expect(keys.status().state).toBe('expired')
    expect(await look(keys, 'first')).toBe('keys_unavailable')
  })

  it('is not used when the issuer answers, at first or later', async () => {
    let answer: Answer = serves(first)
    const readSeed = () => Promise.resolve(readJwks({ keys: [second.jwk] }))
    const { cache: keys, settled, pass } = setUp((conditional) => answer(conditional), { readSeed })
    keys.start()
    await settled(1)
    answer = down
    await pass(HOUR, MINUTE)
    expect(await look(keys, 'second')).toBe('keys_unavailable')
    expect(await look(keys, 'first')).toBe('first')
  })

  it.each<[string, Answer, string]>([
    ['empty', down, 'empty'],
    ['fresh', serves(first), 'fresh'],
  ])('that cannot be read is reported at start and harms nobody (%s)', async (_what, answer, state) => {
    const readSeed = () => Promise.reject(new Error('no'))
    const { cache: keys, results, settled } = setUp(answer, { readSeed })
    keys.start()
    await settled(2)
    expect(results.find(({ source }) => source === 'seed')).toMatchObject({ ok: false })
    expect(keys.status().state).toBe(state)
  })
})

it('keys that are closed fetch no more', async () => {
  const { cache: keys, fetch, pass, settled } = setUp(serves(first))
  keys.start()
  await settled(1)
  keys.close()
  await pass(HOUR, MINUTE)
  expect(fetch).toHaveBeenCalledTimes(1)
})
