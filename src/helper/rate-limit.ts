import { GrantError } from '../errors.ts'
import type { Clock } from '../util/clock.ts'

/** How many token requests a client may make. */
export interface RateLimit {
  /** In the long run. */
  readonly perSecond: number
  /** At once, after a time of rest. */
  readonly burst: number
}

export interface RateLimiter {
  /**
   * Counts a token request for a client, by its configured name.
   *
   * @throws GrantError `rate_limited`; such a request is not counted
   */
  check(client: string, limit: RateLimit): void
}

interface Bucket {
  tokens: number
  atMs: number
}

/** Creates a limiter with a bucket for each client, full at first. */
export function createRateLimiter(clock: Clock): RateLimiter {
  const buckets = new Map<string, Bucket>()
  return {
    check(client, { perSecond, burst }) {
      const nowMs = clock.now()
      const bucket = buckets.get(client) ?? { tokens: burst, atMs: nowMs }
      buckets.set(client, bucket)
      const elapsedMs = Math.max(0, nowMs - bucket.atMs)
      bucket.tokens = Math.min(burst, bucket.tokens + (elapsedMs / 1000) * perSecond)
      bucket.atMs = nowMs
      if (bucket.tokens < 1) throw rateLimited((1 - bucket.tokens) / perSecond)
      bucket.tokens -= 1
    },
  }
}

function rateLimited(waitSeconds: number): GrantError {
  return new GrantError('rate_limited', {
    status: 429,
    error: 'temporarily_unavailable',
    description: 'Too many token requests for this client; the grant was not spent.',
    headers: { 'retry-after': String(Math.max(1, Math.ceil(waitSeconds))) },
  })
}
