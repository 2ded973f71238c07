import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Clock } from '../util/clock.ts'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { notePoll, pollDevice } from './device.ts'
import { deviceKey, type DevicePace } from './device-pace.ts'
import type { CodeGrant, DeviceGrant, GrantRequest, RefreshGrant } from './grants.ts'
import type { OwnTokens } from './own-tokens.ts'
import type { Release } from './release.ts'
import type { Spender } from './spend.ts'
import { requestTokens } from './token-endpoint.ts'
import { requireKeys } from './warm-keys.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
  /** The caller left, or the process ends: who waits for the user of a device, waits no longer. */
  readonly gone: AbortSignal
}

/** What is remembered from one exchange to the next. */
export interface ExchangeMemory {
  readonly spender: Spender
  readonly devices: DevicePace
  readonly ownTokens: OwnTokens
  readonly clock: Clock
}

export interface ExchangeTools extends ExchangeMemory {
  readonly release: Release
}

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, and validated before anybody sees them.
 *
 * @throws GrantError
 */
export async function exchange(request: Exchange, tools: ExchangeTools): Promise<TokenEndpointResponse> {
  const { client, grant } = request
  const response = await getTokens(request, tools)
  // By each caller for itself: what one of them knows about the grant must not make it another one to spend.
  if (grant.type === 'refresh_token') tools.release.compare({ client, grant, response }, grant.subject)
  return response
}

function getTokens(request: Exchange, tools: ExchangeTools): Promise<TokenEndpointResponse> {
  const { client, grant } = request
  const run = () => spendNow(request, tools)
  switch (grant.type) {
    case 'device_code': {
      const { devices: pace, clock } = tools
      const poll = () => notePoll(deviceKey(client.name, grant.deviceCode), pace, run)
      return pollDevice(client, grant, { pace, clock, gone: request.gone }, () => spendOnce(request, tools, poll))
    }
    case 'client_credentials': {
      const { scope, resources, audiences } = grant
      const { name, clientId, issuer, endpoints } = client
      const key = JSON.stringify([clientId, issuer.issuer, endpoints, scope ?? null, resources, audiences])
      return tools.ownTokens.get(name, key, run)
    }
    case 'token_exchange':
      return run()
    case 'refresh_token':
    case 'authorization_code':
      return spendOnce(request, tools, run)
  }
}

async function spendNow({ client, grant }: Exchange, { release }: ExchangeTools): Promise<TokenEndpointResponse> {
  await requireKeys(client)
  const response = await requestTokens(client, grant)
  await release.check({ client, grant, response })
  return response
}

function spendOnce(
  { client, caller, grant }: Exchange,
  { spender }: ExchangeTools,
  run: () => Promise<TokenEndpointResponse>,
): Promise<TokenEndpointResponse> {
  const { credential, ...parameters } = toCredential(grant as RefreshGrant | CodeGrant | DeviceGrant)
  return spender.spend({ client: client.name, caller: caller.name, credential, parameters, replayWindowMs: 0, run })
}

/** What can be spent only once, and what else makes two requests for it the same. */
function toCredential(grant: RefreshGrant | CodeGrant | DeviceGrant): { credential: string; type: string } {
  switch (grant.type) {
    case 'refresh_token': {
      const { refreshToken: credential, subject: _subject, ...parameters } = grant
      return { credential, ...parameters }
    }
    case 'authorization_code': {
      const { code: credential, ...parameters } = grant
      return { credential, ...parameters }
    }
    case 'device_code': {
      const { deviceCode: credential, waitMs: _waitMs, ...parameters } = grant
      return { credential, ...parameters }
    }
  }
}
