import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Clock } from '../util/clock.ts'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { notePoll, pollDevice } from './device.ts'
import { deviceKey, type DevicePace } from './device-pace.ts'
import { keysUnavailable } from './grant-errors.ts'
import type { CodeGrant, DeviceGrant, GrantRequest, RefreshGrant } from './grants.ts'
import type { OwnTokens } from './own-tokens.ts'
import type { Spender } from './spend.ts'
import { requestTokens } from './token-endpoint.ts'
import { validateTokens } from './validate.ts'

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

/**
 * Turns a grant into tokens: spent once, whoever else asks for the same, and validated before anybody sees them.
 *
 * @throws GrantError
 */
export function exchange(request: Exchange, memory: ExchangeMemory): Promise<TokenEndpointResponse> {
  const { client, grant } = request
  const run = () => spendNow(client, grant)
  switch (grant.type) {
    case 'device_code': {
      const { devices: pace, clock } = memory
      const poll = () => notePoll(deviceKey(client.name, grant.deviceCode), pace, run)
      return pollDevice(client, grant, { pace, clock, gone: request.gone }, () => spendOnce(request, memory, poll))
    }
    case 'client_credentials': {
      const { scope, resources, audiences } = grant
      const { name, clientId, issuer, endpoints } = client
      const key = JSON.stringify([clientId, issuer.issuer, endpoints, scope ?? null, resources, audiences])
      return memory.ownTokens.get(name, key, run)
    }
    case 'token_exchange':
      return run()
    case 'refresh_token':
    case 'authorization_code':
      return spendOnce(request, memory, run)
  }
}

async function spendNow(client: HelperClient, grant: GrantRequest): Promise<TokenEndpointResponse> {
  const { state } = client.issuer.status()
  if (state === 'empty' || state === 'expired') throw keysUnavailable()
  const response = await requestTokens(client, grant)
  await validateTokens(response, { client, grant })
  return response
}

function spendOnce(
  { client, caller, grant }: Exchange,
  { spender }: ExchangeMemory,
  run: () => Promise<TokenEndpointResponse>,
): Promise<TokenEndpointResponse> {
  const { credential, ...parameters } = toCredential(grant as RefreshGrant | CodeGrant | DeviceGrant)
  return spender.spend({ client: client.name, caller: caller.name, credential, parameters, replayWindowMs: 0, run })
}

/** What can be spent only once, and what else makes two requests for it the same. */
function toCredential(grant: RefreshGrant | CodeGrant | DeviceGrant): { credential: string; type: string } {
  switch (grant.type) {
    case 'refresh_token': {
      const { refreshToken: credential, ...parameters } = grant
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
