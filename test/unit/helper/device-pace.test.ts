import { describe, expect, it } from 'vitest'
import { createDevicePace, deviceKey } from '../../../src/helper/device-pace.ts'
import { createFakeClock } from '../../fakes/clock.ts'

describe('the pace of devices', () => {
  it('is that of the issuer, or five seconds', () => {
    const clock = createFakeClock()
    const pace = createDevicePace(clock)
    pace.begin('a', 8_000, 60_000)
    expect([pace.delayMs('a'), pace.delayMs('unknown')]).toEqual([8_000, 0])
    pace.pending('unknown')
    expect(pace.delayMs('unknown')).toBe(5_000)
  })

  it('knows the first poll of a code that was handed out here, once', () => {
    const pace = createDevicePace(createFakeClock())
    pace.begin('a', 5_000, 60_000)
    expect([pace.isFirst('a'), pace.isFirst('a'), pace.isFirst('unknown')]).toEqual([true, false, false])
    pace.pending('unknown')
    expect(pace.isFirst('unknown')).toBe(false)
  })

  it('grows with slow_down beyond a minute, and with failures up to one', () => {
    const clock = createFakeClock()
    const pace = createDevicePace(clock)
    for (let i = 0; i < 12; i += 1) pace.backOff('a')
    expect(pace.delayMs('a')).toBe(60_000)
    pace.begin('b', 90_000, 600_000)
    pace.backOff('b')
    expect(pace.delayMs('b')).toBe(90_000)
  })

  it('remembers ten thousand codes at most, the newest', () => {
    const clock = createFakeClock()
    const pace = createDevicePace(clock)
    for (let i = 0; i < 10_001; i += 1) pace.begin(String(i), 5_000, 600_000)
    expect([pace.delayMs('0'), pace.delayMs('1'), pace.delayMs('10000')]).toEqual([0, 5_000, 5_000])
  })

  it('names codes by client, and keeps none of them', () => {
    expect(deviceKey('a', 'code')).not.toBe(deviceKey('b', 'code'))
    expect(deviceKey('a', 'code')).not.toContain('code')
  })
})
