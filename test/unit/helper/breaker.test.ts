import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { GrantError, type GrantCode } from '../../../src/errors.ts'
import { createBreaker } from '../../../src/helper/breaker.ts'
import { createFakeClock } from '../../fakes/clock.ts'

const failing = (code: GrantCode) => () =>
  Promise.reject(new GrantError(code, { status: 502, error: 'temporarily_unavailable' }))
const working = () => Promise.resolve('tokens')

beforeEach(() => void vi.spyOn(Math, 'random').mockReturnValue(1))
afterEach(() => void vi.restoreAllMocks())

function setUp() {
  const clock = createFakeClock()
  const changes: string[] = []
  const breaker = createBreaker({ clock, onChange: (issuer, state) => void changes.push(`${issuer} ${state}`) })
  const codeOf = (request: () => Promise<unknown>, issuer = 'main') =>
    breaker.run(issuer, request).then(
      () => 'ok',
      (error: unknown) => (error instanceof GrantError ? error.code : (error as Error).message),
    )
  const fail = async (times: number, code: GrantCode = 'issuer_timeout') => {
    for (let i = 0; i < times; i += 1) await codeOf(failing(code))
  }
  return { clock, changes, breaker, codeOf, fail }
}

describe('an issuer', () => {
  it.each<GrantCode>(['issuer_unreachable', 'issuer_timeout', 'issuer_error', 'outcome_unknown'])(
    'that fails five times in a row (%s) is left alone',
    async (code) => {
      const { breaker, codeOf, fail, changes } = setUp()
      await fail(4, code)
      expect(breaker.state('main')).toBe('closed')
      await fail(1, code)
      expect(breaker.state('main')).toBe('open')
      const asked = vi.fn(working)
      expect(await codeOf(asked)).toBe('issuer_unavailable')
      expect(asked).not.toHaveBeenCalled()
      expect(changes).toEqual(['main open'])
    },
  )

  it('that is left alone: callers are told when to come back, and that nothing was spent', async () => {
    const { breaker, clock, fail } = setUp()
    await fail(5)
    clock.advance(100)
    await expect(breaker.run('main', working)).rejects.toMatchObject({
      code: 'issuer_unavailable',
      status: 503,
      error: 'temporarily_unavailable',
      headers: { 'retry-after': '1' },
      description: expect.stringContaining('was not spent') as string,
    })
  })

  it('that answers in between, if only to refuse, is not', async () => {
    const { breaker, codeOf, fail } = setUp()
    for (const request of [
      working,
      failing('refused_by_issuer'),
      failing('client_refused_by_issuer'),
      failing('token_validation_failed'),
    ]) {
      await fail(4)
      await codeOf(request)
    }
    expect(breaker.state('main')).toBe('closed')
  })

  it('that was not asked has not answered', async () => {
    const { breaker, codeOf, fail } = setUp()
    await fail(4)
    expect(await codeOf(failing('keys_unavailable'))).toBe('keys_unavailable')
    expect(await codeOf(() => Promise.reject(new TypeError('fault')))).toBe('fault')
    await fail(1)
    expect(breaker.state('main')).toBe('open')
  })

  it('does not stand for another', async () => {
    const { codeOf, fail } = setUp()
    await fail(5)
    expect(await codeOf(working, 'other')).toBe('ok')
  })
})

describe('an issuer that is left alone', () => {
  it('is tried once after a second, and is well when that works', async () => {
    const { breaker, clock, codeOf, fail, changes } = setUp()
    await fail(5)
    clock.advance(999)
    expect(await codeOf(working)).toBe('issuer_unavailable')
    clock.advance(1)
    const answer = Promise.withResolvers<string>()
    const probe = codeOf(() => answer.promise)
    expect(breaker.state('main')).toBe('half_open')
    expect(await codeOf(working)).toBe('issuer_unavailable')
    answer.resolve('tokens')
    expect(await probe).toBe('ok')
    expect(await codeOf(working)).toBe('ok')
    expect(changes).toEqual(['main open', 'main half_open', 'main closed'])
    await fail(4)
    expect(breaker.state('main')).toBe('closed')
  })

  it('is left alone for twice as long each time, up to half a minute', async () => {
    const { breaker, clock, codeOf, fail } = setUp()
    await fail(5)
    const pauses: number[] = []
    for (let i = 0; i < 7; i += 1) {
      let waitedMs = 0
      while ((await codeOf(failing('issuer_unreachable'))) === 'issuer_unavailable') {
        clock.advance(500)
        waitedMs += 500
      }
      pauses.push(waitedMs)
    }
    expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
    clock.advance(30_000)
    await codeOf(working)
    await fail(5)
    clock.advance(1_000)
    expect(await codeOf(working)).toBe('ok')
    expect(breaker.state('main')).toBe('closed')
  })

  it('is tried again when the trial told nothing', async () => {
    const { breaker, clock, codeOf, fail } = setUp()
    await fail(5)
    clock.advance(1_000)
    expect(await codeOf(failing('keys_unavailable'))).toBe('keys_unavailable')
    expect(breaker.state('main')).toBe('open')
    expect(await codeOf(working)).toBe('ok')
  })

  it('is not left alone longer because of requests that were under way', async () => {
    const { clock, codeOf, breaker } = setUp()
    const slow = Promise.withResolvers<never>()
    const all = Array.from({ length: 20 }, () => codeOf(() => slow.promise))
    slow.reject(new GrantError('issuer_timeout', { status: 504, error: 'temporarily_unavailable' }))
    await Promise.all(all)
    expect(breaker.state('main')).toBe('open')
    clock.advance(1_000)
    expect(await codeOf(working)).toBe('ok')
  })

  it('comes back after half a minute at most when the clock is set back', async () => {
    const clock = createFakeClock()
    let shiftMs = 0
    const breaker = createBreaker({ clock: { ...clock, now: () => clock.now() - shiftMs }, onChange: () => undefined })
    for (let i = 0; i < 5; i += 1) await breaker.run('main', failing('issuer_error')).catch(() => undefined)
    shiftMs = 3_600_000
    await expect(breaker.run('main', working)).rejects.toMatchObject({ code: 'issuer_unavailable' })
    clock.advance(30_000)
    expect(await breaker.run('main', working)).toBe('tokens')
  })
})
