/** Remembers for a while which `kid`s the issuer does not publish, so that asking for one again costs it no fetch. */
export interface UnknownKids {
  has(kid: string, nowMs: number): boolean
  add(kid: string, nowMs: number): void
}

/** A key that its issuer publishes after it signs with it is missed for no longer than this, in milliseconds. */
const TTL_MS = 30_000
/** With the longest `kid`s that are looked at, half a MiB. */
const MAX_KIDS = 1_000

/** Creates the memory: 1,000 `kid`s for 30 seconds, the oldest going first. */
export function createUnknownKids(): UnknownKids {
  const untilMs = new Map<string, number>()
  return {
    has: (kid, nowMs) => nowMs < (untilMs.get(kid) ?? 0),
    add(kid, nowMs) {
      // Deleted first, so that the order of the map stays that of age.
      untilMs.delete(kid)
      untilMs.set(kid, nowMs + TTL_MS)
      const [oldest] = untilMs.keys()
      if (untilMs.size > MAX_KIDS && oldest !== undefined) untilMs.delete(oldest)
    },
  }
}
