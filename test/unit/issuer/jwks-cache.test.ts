import { afterEach, describe, expect, it, vi } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import { createJwksCache, type FetchResult, type JwksCache } from '../../../src/issuer/jwks-cache.ts'
import { readJwks } from '../../../src/issuer/jwks.ts'
import { createFakeClock } from '../../fakes/clock.ts'
import { createSigningKey } from '../../fakes/signer.ts'

const first = createSigningKey('ES256', 'first')
const second = createSigningKey('ES256', 'second')
const clock = createFakeClock()
let cache: JwksCache | undefined

/** A cache whose fetches are answered by `answer`; counts them. */
function setUp(answer: () => unknown) {
  const results: FetchResult[] = []
  const fetch = vi.fn(async () => readJwks(await answer()))
  cache = createJwksCache({
    issuerName: 'main',
    fetch,
    refreshIntervalMs: 600_000,
    clock,
    onFetch: (r) => results.push(r),
  })
  const settled = (count: number) => vi.waitFor(() => expect(results).toHaveLength(count))
  return { cache, fetch, results, settled }
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'found',
    (error: unknown) => (error as CodedError).code,
  )
}

afterEach(() => {
  cache?.close()
  vi.useRealTimers()
})

describe('the keys of an issuer', () => {
  it('are fetched once for many requests that come before them', async () => {
    const gate = Promise.withResolvers<unknown>()
    const { cache, fetch } = setUp(() => gate.promise)
    cache.start()
    const found = Promise.all(Array.from({ length: 500 }, () => cache.find('first', 'ES256')))
    gate.resolve({ keys: [first.jwk] })
    expect((await found).every(([key]) => key?.kid === 'first')).toBe(true)
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  it('that never came are unavailable, at once and without a fetch per request', async () => {
    const { cache, fetch, settled } = setUp(() => Promise.reject(new Error('down')))
    cache.start()
    await settled(1)
    for (let i = 0; i < 100; i += 1) expect(await codeOf(cache.find('first', 'ES256'))).toBe('keys_unavailable')
    expect(fetch).toHaveBeenCalledTimes(1)
    expect(cache.status().state).toBe('empty')
  })

  it('are asked for again by themselves, with growing pauses, until they come', async () => {
    vi.useFakeTimers()
    let up = false
    const { cache, results } = setUp(() => (up ? { keys: [first.jwk] } : Promise.reject(new Error('down'))))
    cache.start()
    await vi.advanceTimersByTimeAsync(20_000)
    const failures = results.length
    expect(failures).toBeGreaterThan(4)
    expect(failures).toBeLessThan(12)
    up = true
    await vi.advanceTimersByTimeAsync(10_000)
    expect(results.at(-1)?.ok).toBe(true)
    expect(cache.status()).toMatchObject({ state: 'fresh', keys: 1 })
  })

  it('are fetched again for an unknown kid, but once per cool-down, whatever comes', async () => {
    let published = [first.jwk]
    const { cache, fetch, settled } = setUp(() => ({ keys: published }))
    cache.start()
    await settled(1)
    published = [first.jwk, second.jwk]
    expect(await cache.find('second', 'ES256')).toEqual([])
    clock.advance(10_000)
    expect((await cache.find('second', 'ES256'))[0]?.kid).toBe('second')
    for (let i = 0; i < 1000; i += 1) await cache.find(`forged-${i}`, 'ES256')
    expect(fetch).toHaveBeenCalledTimes(2)
  })

  it('count the cool-down from failed attempts too', async () => {
    let up = true
    const { cache, fetch, settled } = setUp(() => (up ? { keys: [first.jwk] } : Promise.reject(new Error('down'))))
    cache.start()
    await settled(1)
    up = false
    clock.advance(10_000)
    for (let i = 0; i < 20; i += 1) expect(await codeOf(cache.find(`k${i}`, 'ES256'))).toBe('keys_unavailable')
    expect(fetch).toHaveBeenCalledTimes(2)
  })

  it.each([
    ['nothing', () => Promise.reject(new Error('down'))],
    ['an empty set', () => ({ keys: [] })],
    ['no set at all', () => 'oops'],
  ])('are kept when a fetch brings %s', async (_what, bad) => {
    let answer: () => unknown = () => ({ keys: [first.jwk] })
    const { cache, settled } = setUp(() => answer())
    cache.start()
    await settled(1)
    answer = bad
    clock.advance(10_000)
    await codeOf(cache.find('other', 'ES256'))
    await settled(2)
    expect((await cache.find('first', 'ES256'))[0]?.kid).toBe('first')
    expect(cache.status()).toMatchObject({ state: 'stale', ageSeconds: 10 })
  })

  it('are fetched again on schedule, so that a removed key dies without anybody asking', async () => {
    vi.useFakeTimers()
    let published = [first.jwk, second.jwk]
    const { cache } = setUp(() => ({ keys: published }))
    cache.start()
    await vi.advanceTimersByTimeAsync(0)
    const [key] = await cache.find('second', 'ES256')
    expect(key && cache.isCurrent(key)).toBe(true)
    published = [first.jwk]
    await vi.advanceTimersByTimeAsync(600_000)
    expect(key && cache.isCurrent(key)).toBe(false)
  })

  it('with the kid of a token but for another algorithm are no reason to fetch', async () => {
    const { cache, fetch, settled } = setUp(() => ({ keys: [first.jwk] }))
    cache.start()
    await settled(1)
    clock.advance(60_000)
    expect(await codeOf(cache.find('first', 'RS256'))).toBe('algorithm_not_allowed')
    expect(fetch).toHaveBeenCalledTimes(1)
  })
})
