import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { keysUnavailable } from './grant-errors.ts'
import type { GrantRequest } from './grants.ts'
import type { SealBinding } from './seal.ts'
import { bind, openRefreshToken, sealTokens, type SharedAnswer, type Spending } from './spending.ts'
import { requestTokens } from './token-endpoint.ts'
import { validateTokens } from './validate.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
  /** Called when the answer is one that was got for another request. */
  readonly onShared: (by: SharedAnswer) => void
}

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, validated before anybody sees them, and sealed for
 * the caller.
 *
 * @throws GrantError
 */
export async function exchange(request: Exchange, spending: Spending): Promise<TokenEndpointResponse> {
  const binding = bind(request.client, request.caller)
  const grant = await openGrant(request.grant, binding, spending)
  return sealTokens(await spendOnce({ ...request, grant }, spending), binding, spending)
}

async function openGrant(grant: GrantRequest, binding: SealBinding, spending: Spending): Promise<GrantRequest> {
  if (grant.type !== 'refresh_token') return grant
  return { ...grant, refreshToken: await openRefreshToken(grant.refreshToken, binding, spending) }
}

function spendOnce({ client, caller, grant, onShared }: Exchange, spending: Spending): Promise<TokenEndpointResponse> {
  const run = () => spendNow(client, grant, spending)
  const credential = toCredential(grant)
  if (credential === undefined) return run()
  const { secret, ...parameters } = credential
  return spending.spend({
    client: client.name,
    caller: caller.name,
    credential: secret,
    parameters,
    replayWindowMs: client.replayWindowMs,
    run,
    onShared,
  })
}

async function spendNow(
  client: HelperClient,
  grant: GrantRequest,
  { breaker }: Spending,
): Promise<TokenEndpointResponse> {
  const { state } = client.issuer.status()
  if (state === 'empty' || state === 'expired') throw keysUnavailable()
  const response = await breaker.run(client.issuer.name, () => requestTokens(client, grant))
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
