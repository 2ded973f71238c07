import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import type { GrantRequest } from './grants.ts'
import type { Release } from './release.ts'
import type { SealBinding } from './seal.ts'
import { bind, openRefreshToken, sealTokens, type SharedAnswer, type Spending } from './spending.ts'
import { requestTokens } from './token-endpoint.ts'
import { requireKeys } from './warm-keys.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
  /** Called when the answer is one that was got for another request. */
  readonly onShared: (by: SharedAnswer) => void
}

export interface ExchangeTools {
  readonly spending: Spending
  readonly release: Release
}

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, validated before anybody sees them, and sealed for
 * the caller.
 *
 * @throws GrantError
 */
export async function exchange(request: Exchange, tools: ExchangeTools): Promise<TokenEndpointResponse> {
  const { spending, release } = tools
  const { client } = request
  const binding = bind(client, request.caller)
  const grant = await openGrant(request.grant, binding, spending)
  const response = await spendOnce({ ...request, grant }, tools)
  // By each caller for itself: what one of them knows about the grant must not make it another one to spend.
  if (grant.type === 'refresh_token') release.compare({ client, grant, response }, grant.subject)
  return sealTokens(response, binding, spending)
}

async function openGrant(grant: GrantRequest, binding: SealBinding, spending: Spending): Promise<GrantRequest> {
  if (grant.type !== 'refresh_token') return grant
  return { ...grant, refreshToken: await openRefreshToken(grant.refreshToken, binding, spending) }
}

function spendOnce(request: Exchange, tools: ExchangeTools): Promise<TokenEndpointResponse> {
  const { client, caller, grant, onShared } = request
  const run = () => spendNow(request, tools)
  const credential = toCredential(grant)
  if (credential === undefined) return run()
  const { secret, ...parameters } = credential
  return tools.spending.spend({
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
  { client, grant }: Exchange,
  { spending, release }: ExchangeTools,
): Promise<TokenEndpointResponse> {
  await requireKeys(client)
  const response = await spending.breaker.run(client.issuer.name, () => requestTokens(client, grant))
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
