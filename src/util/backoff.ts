/**
 * Exponential back-off with jitter: the delay before try `attempt`, between half and the whole of
 * `baseMs · 2^(attempt-1)`, and never more than `maxMs`.
 *
 * @param attempt - how many tries failed so far, 1 or more
 */
export function backoffMs(attempt: number, { baseMs, maxMs }: { baseMs: number; maxMs: number }): number {
  const ceiling = Math.min(maxMs, baseMs * 2 ** Math.min(attempt - 1, 30))
  return Math.round(ceiling * (0.5 + Math.random() / 2))
}
