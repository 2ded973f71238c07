import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { createMemoryStore } from '../../src/store/memory.ts'
import { createRedisStore } from '../../src/store/redis.ts'
import type { Store } from '../../src/store/store.ts'
import { systemClock } from '../../src/util/clock.ts'
import { isRedisInstalled, startRedis, stopRedis } from '../fakes/redis.ts'

const redis = isRedisInstalled() ? await startRedis() : undefined
const open: Store[] = []
let count = 0

const STORES: [string, boolean, () => Store][] = [
  ['memory', true, () => createMemoryStore({ clock: systemClock })],
  [
    'Redis',
    redis !== undefined,
    () =>
      createRedisStore({
        host: '127.0.0.1',
        port: redis?.port ?? 0,
        tls: undefined,
        username: undefined,
        readPassword: undefined,
        database: 0,
        keyPrefix: `case-${(count += 1)}`,
        connectTimeoutMs: 5_000,
        commandTimeoutMs: 5_000,
        clock: systemClock,
        onChange: () => undefined,
      }),
  ],
]

afterEach(async () => {
  await Promise.all(open.splice(0).map((store) => store.close()))
})
afterAll(stopRedis)

const LONG = 60_000
/** As short as a store can tell, and a while after its end. */
const SHORT = 30
const pause = () => new Promise((resolve) => setTimeout(resolve, 80))

describe.each(STORES)('the store in %s', (kind, isThere, create) => {
  const test = isThere ? it : it.skip
  const start = () => {
    const store = create()
    open.push(store)
    return store
  }

  test('has nothing under a name that was never set', async () => {
    expect(await start().get('a')).toBeUndefined()
  })

  test('gives back what was set last, whatever characters are in it', async () => {
    const store = start()
    const text = 'line\r\n"quoted" \0 ü 🙂'.repeat(500)
    await store.set('a', 'before', LONG)
    await store.set('a', text, LONG)
    expect(await store.get('a')).toBe(text)
    expect(await store.get('b')).toBeUndefined()
  })

  test('forgets what was set when its time ends', async () => {
    const store = start()
    await store.set('a', '1', SHORT)
    await pause()
    expect(await store.get('a')).toBeUndefined()
    expect(await store.replaceIfEqual('a', '1', '2', LONG)).toBe(false)
    expect(await store.deleteIfEqual('a', '1')).toBe(false)
  })

  test('sets a value where there is none, and gives back what is there', async () => {
    const store = start()
    expect(await store.getOrSet('a', '1', LONG)).toBeUndefined()
    expect(await store.getOrSet('a', '2', LONG)).toBe('1')
    expect(await store.get('a')).toBe('1')
  })

  test('takes a value whose time ended for none', async () => {
    const store = start()
    await store.getOrSet('a', '1', SHORT)
    await pause()
    expect(await store.getOrSet('a', '2', LONG)).toBeUndefined()
    expect(await store.get('a')).toBe('2')
  })

  test('lets one of many win that set a value at once', async () => {
    const store = start()
    const found = await Promise.all(Array.from({ length: 50 }, (_, i) => store.getOrSet('a', String(i), LONG)))
    expect(found.filter((value) => value === undefined)).toHaveLength(1)
    const winner = String(found.indexOf(undefined))
    expect(await store.get('a')).toBe(winner)
    expect(new Set(found)).toEqual(new Set([undefined, winner]))
  })

  test('replaces the value that is expected, and no other', async () => {
    const store = start()
    await store.set('a', '1', LONG)
    expect(await store.replaceIfEqual('a', '2', '3', LONG)).toBe(false)
    expect(await store.replaceIfEqual('b', '1', '3', LONG)).toBe(false)
    expect(await store.get('a')).toBe('1')
    expect(await store.get('b')).toBeUndefined()
    expect(await store.replaceIfEqual('a', '1', '3', LONG)).toBe(true)
    expect(await store.get('a')).toBe('3')
  })

  test('counts the time of a replaced value from its replacement', async () => {
    const store = start()
    // Long enough for a busy machine to get to the replacement in time.
    const before = 1_000
    await store.set('a', '1', before)
    expect(await store.replaceIfEqual('a', '1', '2', LONG)).toBe(true)
    await new Promise((resolve) => setTimeout(resolve, before + 50))
    expect(await store.get('a')).toBe('2')
    expect(await store.replaceIfEqual('a', '2', '2', SHORT)).toBe(true)
    await pause()
    expect(await store.get('a')).toBeUndefined()
  })

  test('deletes the value that is expected, and no other', async () => {
    const store = start()
    await store.set('a', '1', LONG)
    expect(await store.deleteIfEqual('a', '2')).toBe(false)
    expect(await store.get('a')).toBe('1')
    expect(await store.deleteIfEqual('a', '1')).toBe(true)
    expect(await store.get('a')).toBeUndefined()
  })

  test('does nothing more once it is closed', async () => {
    const store = start()
    await store.set('a', '1', LONG)
    expect(store.status()).toEqual({ kind: kind.toLowerCase(), state: 'ready' })
    await store.close()
    expect(store.status().state).toBe('closed')
    await expect(store.get('a')).rejects.toMatchObject({ name: 'StoreError', code: 'closed', unsent: true })
    await expect(store.getOrSet('a', '1', LONG)).rejects.toMatchObject({ code: 'closed', unsent: true })
  })
})

describe('the store in memory', () => {
  it('keeps no more entries than it may, and lets the oldest go', async () => {
    const store = createMemoryStore({ clock: systemClock, maxEntries: 2 })
    for (const key of ['a', 'b', 'c']) await store.set(key, key, LONG)
    expect(await Promise.all(['a', 'b', 'c'].map((key) => store.get(key)))).toEqual([undefined, 'b', 'c'])
    await store.close()
  })

  it('keeps no more text than it may, and nothing that is longer alone', async () => {
    const store = createMemoryStore({ clock: systemClock, maxLength: 10 })
    await store.set('a', '1234', LONG)
    await store.set('a', '5678', LONG)
    await store.set('b', '1234', LONG)
    expect(await Promise.all(['a', 'b'].map((key) => store.get(key)))).toEqual(['5678', '1234'])
    await store.set('c', '1', LONG)
    expect(await Promise.all(['a', 'b', 'c'].map((key) => store.get(key)))).toEqual([undefined, '1234', '1'])
    await store.set('d', '1234567890', LONG)
    expect(await store.get('d')).toBeUndefined()
    await store.close()
  })

  it('wipes what is over without being asked for it', async () => {
    const timers = new Set<() => void>()
    const clock = {
      now: () => 0,
      after: (_ms: number, run: () => void) => {
        timers.add(run)
        return () => timers.delete(run)
      },
    }
    const store = createMemoryStore({ clock })
    await store.set('a', '1', LONG)
    await store.set('a', '2', LONG)
    expect(timers.size).toBe(1)
    for (const run of timers) run()
    expect(await store.get('a')).toBeUndefined()
  })
})
