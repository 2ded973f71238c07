/** Time, passed in wherever it is needed so that tests can move it. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number
  /**
   * Runs something once after a delay in milliseconds, at most 24 days. Keeps no process alive.
   *
   * @returns a function that calls it off
   */
  after(delayMs: number, run: () => void): () => void
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs).unref()
    return () => clearTimeout(timer)
  },
}
