import type { TokenEndpointResponse } from 'oauth4webapi'
import type { Clock } from '../util/clock.ts'
import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { notePoll, pollDevice } from './device.ts'
import { deviceKey, type DevicePace } from './device-pace.ts'
import type { CodeGrant, DeviceGrant, GrantRequest, RefreshGrant } from './grants.ts'
import type { OwnTokens } from './own-tokens.ts'
import type { Release } from './release.ts'
import type { SealBinding } from './seal.ts'
import { bind, openRefreshToken, sealTokens, type SharedAnswer, type Spending } from './spending.ts'
import { requestTokens } from './token-endpoint.ts'
import { requireKeys } from './warm-keys.ts'

export interface Exchange {
  readonly client: HelperClient
  readonly caller: Caller
  readonly grant: GrantRequest
  /** The caller left, or the process ends: who waits for the user of a device, waits no longer. */
  readonly gone: AbortSignal
  /** Called when the answer is one that was got for another request. */
  readonly onShared: (by: SharedAnswer) => void
}

/** What is remembered from one exchange to the next, whatever is configured. */
export interface ExchangeMemory {
  readonly devices: DevicePace
  readonly ownTokens: OwnTokens
  readonly clock: Clock
}

export interface ExchangeTools extends ExchangeMemory {
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
  const { grant, outdated } = await openGrant(request, binding, tools)
  const response = await getTokens({ ...request, grant }, tools)
  // By each caller for itself: what one of them knows about the grant must not make it another one to spend.
  if (grant.type === 'refresh_token') release.compare({ client, grant, response }, grant.subject)
  const subject = release.subjectOf({ client, grant, response })
  return sealTokens(response, { ...binding, subject }, outdated, spending)
}

async function openGrant(
  { client, grant }: Exchange,
  binding: SealBinding,
  { spending, release }: ExchangeTools,
): Promise<{ grant: GrantRequest; outdated: string | undefined }> {
  if (grant.type !== 'refresh_token') return { grant, outdated: undefined }
  const { refreshToken, subject, isCurrent } = await openRefreshToken(grant.refreshToken, binding, spending)
  if (subject !== undefined) release.learn(client, refreshToken, subject)
  return { grant: { ...grant, refreshToken }, outdated: isCurrent ? undefined : refreshToken }
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

function spendOnce(
  { client, caller, grant, onShared }: Exchange,
  { spending }: ExchangeTools,
  run: () => Promise<TokenEndpointResponse>,
): Promise<TokenEndpointResponse> {
  const { secret, ...parameters } = toCredential(grant as RefreshGrant | CodeGrant | DeviceGrant)
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
  { client, grant }: Exchange,
  { spending, release }: ExchangeTools,
): Promise<TokenEndpointResponse> {
  await requireKeys(client)
  const discard = (refreshToken: string) => release.discard({ client, grant }, refreshToken)
  const response = await spending.breaker.run(client.issuer.name, () => requestTokens(client, grant, discard))
  await release.check({ client, grant, response })
  return response
}

/** What can be spent only once, and what else makes two requests for it the same. */
function toCredential(grant: RefreshGrant | CodeGrant | DeviceGrant): { secret: string; type: string } {
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
  }
}
