import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import type { Clock } from '../util/clock.ts'
import { createSingleFlight } from '../util/single-flight.ts'

/** The tokens that clients got for themselves (RFC 6749 §4.4), kept while they are good. */
export interface OwnTokens {
  /**
   * The tokens of a client, with what is left of their lifetime as `expires_in`.
   *
   * @param key - of everything that was asked for
   * @param fetch - asks the issuer; called once for all callers at a time
   */
  get(client: string, key: string, fetch: () => Promise<TokenEndpointResponse>): Promise<TokenEndpointResponse>
}

export interface OwnTokensOptions {
  readonly clock: Clock
  /** Tokens could not be renewed ahead of their end, and are used on. */
  readonly onRenewalFailed: (client: string, code: string) => void
}

/** Renewed after this part of their lifetime, by whoever asks then. */
const RENEW_AFTER = 0.8
/** After a renewal that failed, the next is tried this much later. */
const RETRY_MS = 5_000
/** Most tokens that are kept: callers choose scopes. The oldest go first. */
const MAX_ENTRIES = 1_000
/** Nobody gets a token that is good for less. */
const LAST_MS = 1_000

interface Entry {
  readonly tokens: TokenEndpointResponse
  readonly untilMs: number
  renewMs: number
}

/** Creates the memory. */
export function createOwnTokens({ clock, onRenewalFailed }: OwnTokensOptions): OwnTokens {
  const entries = new Map<string, Entry>()
  const share = createSingleFlight<TokenEndpointResponse>()

  const renew = (key: string, fetch: () => Promise<TokenEndpointResponse>) =>
    share(key, async () => {
      const askedMs = clock.now()
      // Nobody asked for it (RFC 6749 §4.4.3), and all callers would share it.
      const { refresh_token: _refreshToken, ...tokens } = await fetch()
      const lifetimeMs = (tokens.expires_in ?? 0) * 1000
      entries.delete(key)
      if (lifetimeMs > LAST_MS) {
        for (const oldest of entries.keys()) {
          if (entries.size < MAX_ENTRIES) break
          entries.delete(oldest)
        }
        // Counted from before the request: the issuer began to count some time during it.
        entries.set(key, { tokens, untilMs: askedMs + lifetimeMs, renewMs: askedMs + lifetimeMs * RENEW_AFTER })
      }
      return tokens
    })

  return {
    async get(client, asked, fetch) {
      const key = `${client} ${asked}`
      const now = clock.now()
      const entry = entries.get(key)
      if (entry === undefined || now >= entry.untilMs - LAST_MS) return renew(key, fetch)
      if (now >= entry.renewMs) {
        entry.renewMs = now + RETRY_MS
        renew(key, fetch).catch((error: unknown) =>
          onRenewalFailed(client, error instanceof GrantError ? error.code : 'internal_error'),
        )
      }
      return { ...entry.tokens, expires_in: Math.floor((entry.untilMs - now) / 1000) }
    },
  }
}
