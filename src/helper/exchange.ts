import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { keysUnavailable } from './grant-errors.ts'
import type { GrantRequest } from './grants.ts'
import type { Spender } from './spend.ts'
import { requestTokens } from './token-endpoint.ts'
import { validateTokens } from './validate.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
}

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, and validated before anybody sees them.
 *
 * @throws GrantError
 */
export function exchange({ client, caller, grant }: Exchange, spender: Spender): Promise<TokenEndpointResponse> {
  const run = () => spendNow(client, grant)
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

async function spendNow(client: HelperClient, grant: GrantRequest): Promise<TokenEndpointResponse> {
  const { state } = client.issuer.status()
  if (state === 'empty' || state === 'expired') throw keysUnavailable()
  const response = await requestTokens(client, grant)
  await validateTokens(response, { client, grant })
  return response
}

/** What can be spent only once, and what else makes two requests for it the same. */
function toCredential(grant: GrantRequest): { secret: string; [parameter: string]: unknown } | undefined {
  switch (grant.type) {
    case 'refresh_token': {
      const { refreshToken: secret, ...parameters } = grant
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
