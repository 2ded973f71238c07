import type { Clock } from '../util/clock.ts'

export interface BoundedLinesOptions {
  readonly clock: Clock
  /** Lines in the long run. */
  readonly perSecond: number
  /** Lines at once, after a time of rest. */
  readonly burst: number
  /** How long lines that were left out are counted before they are told of, in milliseconds. */
  readonly tellAfterMs: number
  /** So many lines were left out. */
  readonly tell: (lines: number) => void
}

/**
 * Creates the bound on log lines that anybody can bring about.
 *
 * @returns says, for one line, whether to write it; it counts those that are not
 */
export function createBoundedLines({ clock, perSecond, burst, tellAfterMs, tell }: BoundedLinesOptions): () => boolean {
  let allowed = burst
  let atMs = clock.now()
  let leftOut = 0
  return () => {
    const nowMs = clock.now()
    allowed = Math.min(burst, allowed + (Math.max(0, nowMs - atMs) / 1000) * perSecond)
    atMs = nowMs
    if (allowed >= 1) {
      allowed -= 1
      return true
    }
    leftOut += 1
    if (leftOut === 1) {
      clock.after(tellAfterMs, () => {
        tell(leftOut)
        leftOut = 0
      })
    }
    return false
  }
}
