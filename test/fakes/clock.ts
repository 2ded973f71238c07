import type { Clock } from '../../src/util/clock.ts'

/** A clock that stands still until it is moved. */
export interface FakeClock extends Clock {
  /** Moves on, and runs what came due on the way, each at its own time. */
  advance(ms: number): void
  /** How many things wait for it. */
  waiting(): number
}

/** @param startMs - milliseconds since the Unix epoch */
export function createFakeClock(startMs = Date.now()): FakeClock {
  let nowMs = startMs
  const pending = new Set<{ readonly atMs: number; readonly run: () => void }>()
  const nextUntil = (endMs: number) =>
    [...pending].filter(({ atMs }) => atMs <= endMs).toSorted((a, b) => a.atMs - b.atMs)[0]
  return {
    now: () => nowMs,
    after(delayMs, run) {
      const entry = { atMs: nowMs + delayMs, run }
      pending.add(entry)
      return () => void pending.delete(entry)
    },
    advance(ms) {
      const endMs = nowMs + ms
      for (let next = nextUntil(endMs); next !== undefined; next = nextUntil(endMs)) {
        pending.delete(next)
        nowMs = next.atMs
        next.run()
      }
      nowMs = endMs
    },
    waiting: () => pending.size,
  }
}
