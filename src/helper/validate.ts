import { decodeJwt } from 'jose'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { CodedError } from '../errors.ts'
import { holdsOneOf } from '../token/claims.ts'
import { createIssuerIndex, type AcceptedIssuer } from '../token/issuers.ts'
import { verifyJwt } from '../token/jwt.ts'
import type { HelperClient } from './clients.ts'
import { validationFailed } from './grant-errors.ts'
import type { GrantRequest } from './grants.ts'

export interface ValidationContext {
  readonly client: HelperClient
  readonly grant: GrantRequest
}

/**
 * Validates what an issuer returned before anything of it is handed out: an ID token in any case, an access token when it
 * is a JWT meant for the resource behind this server. Any other access token is none of a client's business and is not
 * looked at (RFC 9068 §6).
 *
 * @throws GrantError `token_validation_failed`
 * @see OpenID Connect Core 1.0 §3.1.3.7
 */
export async function validateTokens(response: TokenEndpointResponse, context: ValidationContext): Promise<void> {
  const { client } = context
  const { issuers, verifier } = client.validation
  checkTokenType(response, context)
  try {
    if (response.id_token !== undefined) await validateIdToken(response.id_token, client)
    if (isForUs(response.access_token, issuers)) await verifier.verify(response.access_token)
  } catch (error) {
    if (error instanceof CodedError) throw validationFailed(error.code)
    throw error
  }
}

/** RFC 6749 §7.1; what a token exchange yields may be no access token at all (RFC 8693 §2.2.1). */
function checkTokenType({ token_type: type }: TokenEndpointResponse, { client, grant }: ValidationContext): void {
  const name = type.toLowerCase()
  if (client.tokenTypes.has(name) || (grant.type === 'token_exchange' && name === 'n_a')) return
  throw validationFailed('token_type')
}

async function validateIdToken(idToken: string, { accepted, clientId, validation }: HelperClient): Promise<void> {
  const { expectation, keys } = accepted
  const forClient: AcceptedIssuer = {
    keys,
    expectation: {
      ...expectation,
      audience: { claim: 'aud', values: [clientId] },
      kind: 'id_token',
      types: new Set(['jwt', 'absent']),
      required: [],
      forbidden: [],
    },
  }
  const { claims } = await verifyJwt(idToken, createIssuerIndex([forClient]), validation.clock.now())
  const { aud, azp, sub, iat } = claims
  if (typeof sub !== 'string' || sub === '') throw validationFailed('id_token sub')
  if (typeof iat !== 'number') throw validationFailed('id_token iat')
  if (azp !== undefined && azp !== clientId) throw validationFailed('id_token azp')
  if (Array.isArray(aud) && aud.length > 1 && azp === undefined) throw validationFailed('id_token azp')
}

function isForUs(accessToken: string, issuers: readonly AcceptedIssuer[]): boolean {
  let claims: ReturnType<typeof decodeJwt>
  try {
    claims = decodeJwt(accessToken)
  } catch {
    return false
  }
  return issuers.some(
    ({ expectation: { issuer, audience } }) =>
      issuer === claims.iss && holdsOneOf(claims[audience.claim], audience.values),
  )
}
