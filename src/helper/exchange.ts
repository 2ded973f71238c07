import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import type { GrantRequest } from './grants.ts'
import type { Release } from './release.ts'
import type { Spender } from './spend.ts'
import { requestTokens } from './token-endpoint.ts'
import { requireKeys } from './warm-keys.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
}

export interface ExchangeTools {
  readonly spender: Spender
  readonly release: Release
}

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, and validated before anybody sees them.
 *
 * @throws GrantError
 */
export async function exchange(
  { client, caller, grant }: Exchange,
  { spender, release }: ExchangeTools,
): Promise<TokenEndpointResponse> {
  const response = await spendOnce({ client, caller, grant }, { spender, release })
  // By each caller for itself: what one of them knows about the grant must not make it another one to spend.
  if (grant.type === 'refresh_token') release.compare({ client, grant, response }, grant.subject)
  return response
}

function spendOnce(
  { client, caller, grant }: Exchange,
  { spender, release }: ExchangeTools,
): Promise<TokenEndpointResponse> {
  const run = () => spendNow({ client, caller, grant }, release)
  const credential = toCredential(grant)
  if (credential === undefined) return run()
  const { secret, ...parameters } = credential
  return spender.spend({
    client: client.name,
    caller: caller.name,
    credential: secret,
    parameters,
    replayWindowMs: 0,
    run,
  })
}

async function spendNow({ client, grant }: Exchange, release: Release): Promise<TokenEndpointResponse> {
  await requireKeys(client)
  const response = await requestTokens(client, grant)
  await release.check({ client, grant, response })
  return response
}

/** What can be spent only once, and what else makes two requests for it the same. */
function toCredential(grant: GrantRequest): { secret: string; [parameter: string]: unknown } | undefined {
  switch (grant.type) {
    case 'refresh_token': {
      const { refreshToken: secret, subject: _subject, ...parameters } = grant
      return { secret, ...parameters }
    }
    case 'authorization_code': {
      const { code: secret, ...parameters } = grant
      return { secret, ...parameters }
    }
    case 'device_code': {
      const { deviceCode: secret, waitMs: _waitMs, ...parameters } = grant
      return { secret, ...parameters }
    }
    case 'client_credentials':
    case 'token_exchange':
      return undefined
  }
}
