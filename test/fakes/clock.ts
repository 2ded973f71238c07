import type { Clock } from '../../src/util/clock.ts'

/** A clock that stands still until it is moved. */
export interface FakeClock extends Clock {
  advance(ms: number): void
}

/** @param startMs - milliseconds since the Unix epoch */
export function createFakeClock(startMs = Date.now()): FakeClock {
  let nowMs = startMs
  return { now: () => nowMs, advance: (ms) => void (nowMs += ms) }
}
