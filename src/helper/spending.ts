import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import type { Breaker } from './breaker.ts'
import type { HelperClient } from './clients.ts'
import type { RateLimiter } from './rate-limit.ts'
import type { Opened, SealBinding, Sealer } from './seal.ts'
import type { Spend } from './spend.ts'
import type { Subject } from './subjects.ts'

/** By what a request is answered that did not spend anything itself. */
export type SharedAnswer = 'coalesced' | 'replayed'

/** What happens with sealed refresh tokens, for the metrics. */
export type SealOperation = 'seal' | 'open' | 'refuse'

/** What keeps spending safe. */
export interface Spending {
  /** Spends once, among all replicas where they share a store. */
  readonly spend: (spend: Spend) => Promise<TokenEndpointResponse>
  readonly breaker: Breaker
  readonly limiter: RateLimiter
  /** Absent when refresh tokens are handed out as they come. */
  readonly sealer: Sealer | undefined
  readonly onSealed: (client: string, operation: SealOperation) => void
}

/** Whom a refresh token is sealed for. */
export function bind(client: HelperClient, caller: { readonly name: string }): SealBinding {
  return { client: client.name, caller: caller.name }
}

/**
 * The refresh token of the issuer behind what a caller sent.
 *
 * @throws GrantError `refresh_token_not_sealed`, `refresh_token_seal_invalid`
 */
export async function openRefreshToken(text: string, binding: SealBinding, spending: Spending): Promise<Opened> {
  const { sealer, onSealed } = spending
  if (sealer === undefined) return { refreshToken: text, subject: undefined, isCurrent: true }
  try {
    const opened = await sealer.open(text, binding)
    if (opened.refreshToken !== text) onSealed(binding.client, 'open')
    return opened
  } catch (error) {
    if (error instanceof GrantError) onSealed(binding.client, 'refuse')
    throw error
  }
}

/**
 * The tokens as a caller gets them: with its refresh token sealed, if it is to be.
 *
 * @param outdated - the refresh token that was spent, if it came unsealed or under a key of before: it is handed out sealed
 * anew when the issuer sends no other
 */
export async function sealTokens(
  tokens: TokenEndpointResponse,
  binding: SealBinding & { readonly subject: Subject | undefined },
  outdated: string | undefined,
  { sealer, onSealed }: Spending,
): Promise<TokenEndpointResponse> {
  const { refresh_token: refreshToken = outdated } = tokens
  if (sealer === undefined || refreshToken === undefined) return tokens
  onSealed(binding.client, 'seal')
  return { ...tokens, refresh_token: await sealer.seal(refreshToken, binding, binding.subject) }
}
