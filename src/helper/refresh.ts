import { hash } from 'node:crypto'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import { createSingleFlight } from '../util/single-flight.ts'
import { requestRefresh, type HelperClientOptions, type RefreshParameters } from './client.ts'
import { validateTokenResponse, type ValidateOptions } from './validate.ts'

/** A client together with what its tokens are validated against. */
export interface HelperClient extends HelperClientOptions {
  readonly validate: Omit<ValidateOptions, 'clientId' | 'accepted'>
}

/** Spends a refresh token; the promise does not depend on who waits for it. */
export type RefreshSpender = (client: HelperClient, parameters: RefreshParameters) => Promise<TokenEndpointResponse>

/**
 * Creates the spender. Concurrent spends of one refresh token become one request to the issuer, whose answer all callers
 * get: with rotation, a second request would revoke the whole family (RFC 9700 §4.14.2).
 *
 * @param onCoalesced - called for every caller that joined a spend under way
 */
export function createRefreshSpender(onCoalesced: (client: string) => void): RefreshSpender {
  const share = createSingleFlight<TokenEndpointResponse>()
  return (client, parameters) => {
    let started = false
    const promise = share(toKey(client, parameters), () => {
      started = true
      return spend(client, parameters)
    })
    if (!started) onCoalesced(client.name)
    return promise
  }
}

function toKey({ name }: HelperClient, { refreshToken, scope, resources }: RefreshParameters): string {
  return hash('sha256', JSON.stringify([name, refreshToken, scope ?? null, resources]), 'base64')
}

async function spend(client: HelperClient, parameters: RefreshParameters): Promise<TokenEndpointResponse> {
  // Without keys the answer could not be validated, and by then the refresh token would be gone.
  if (client.issuer.status().state === 'empty') throw keysUnavailable()
  const response = await requestRefresh(client, parameters)
  const { clientId, accepted, validate } = client
  await validateTokenResponse(response, { clientId, accepted, ...validate })
  return response
}

function keysUnavailable(): GrantError {
  return new GrantError('keys_unavailable', {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'The keys of the identity provider are not available; the grant was not spent.',
    headers: { 'retry-after': '5' },
  })
}
