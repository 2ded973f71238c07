import { describe, expect, it } from 'vitest'
import { createRateLimiter } from '../../../src/helper/rate-limit.ts'
import { createFakeClock } from '../../fakes/clock.ts'

const LIMIT = { perSecond: 10, burst: 20 }

function setUp() {
  const clock = createFakeClock()
  let shiftMs = 0
  const limiter = createRateLimiter({ ...clock, now: () => clock.now() - shiftMs })
  /** How many of so many requests pass. */
  const passing = (requests: number, client = 'web', limit = LIMIT) => {
    let count = 0
    for (let i = 0; i < requests; i += 1) {
      try {
        limiter.check(client, limit)
        count += 1
      } catch {
        // Not this one.
      }
    }
    return count
  }
  return { clock, limiter, passing, setBack: (ms: number) => void (shiftMs += ms) }
}

describe('a client', () => {
  it('may make a burst of requests, and then as many as time goes on', () => {
    const { clock, passing } = setUp()
    expect(passing(100)).toBe(20)
    clock.advance(99)
    expect(passing(100)).toBe(0)
    clock.advance(1)
    expect(passing(100)).toBe(1)
    clock.advance(1_000)
    expect(passing(100)).toBe(10)
    clock.advance(3_600_000)
    expect(passing(100)).toBe(20)
  })

  it('is told when to come back, and that nothing was spent', () => {
    const { limiter, passing } = setUp()
    const slow = { perSecond: 0.1, burst: 1 }
    passing(1, 'web', slow)
    expect(() => limiter.check('web', slow)).toThrow(
      expect.objectContaining({
        code: 'rate_limited',
        status: 429,
        error: 'temporarily_unavailable',
        headers: { 'retry-after': '10' },
        description: expect.stringContaining('was not spent') as string,
      }) as Error,
    )
  })

  it('does not use up the limit of another', () => {
    const { passing } = setUp()
    expect(passing(100)).toBe(20)
    expect(passing(100, 'native')).toBe(20)
  })

  it('is under its new limit as soon as that is changed', () => {
    const { clock, passing } = setUp()
    expect(passing(100)).toBe(20)
    clock.advance(1_000)
    expect(passing(100, 'web', { perSecond: 1, burst: 2 })).toBe(1)
    clock.advance(10_000)
    expect(passing(100, 'web', { perSecond: 1, burst: 2 })).toBe(2)
  })

  it('gains and loses nothing when the clock is set back', () => {
    const { clock, passing, setBack } = setUp()
    passing(100)
    setBack(3_600_000)
    expect(passing(100)).toBe(0)
    clock.advance(1_000)
    expect(passing(100)).toBe(10)
  })
})
