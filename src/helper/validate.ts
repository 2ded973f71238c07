import type { TokenEndpointResponse } from 'oauth4webapi'
import { CodedError, Unavailable } from '../errors.ts'
import { checkKind, holdsOneOf, type Claims } from '../token/claims.ts'
import { createIssuerIndex, type AcceptedIssuer } from '../token/issuers.ts'
import { readUnverified } from '../token/jwt.ts'
import type { HelperClient } from './clients.ts'
import { validationFailed } from './grant-errors.ts'
import type { GrantRequest } from './grants.ts'
import { validateIdToken } from './id-token.ts'
import { toSubject, type Subject } from './subjects.ts'

export interface ValidationContext {
  readonly client: HelperClient
  readonly grant: GrantRequest
  /** Whom the grant is known to be about. */
  readonly subject: Subject | undefined
}

/** What was looked at, for the log. */
export interface Validated {
  readonly idToken: 'valid' | 'absent'
  /** `not_checked`: opaque, encrypted, or meant for somebody else. */
  readonly accessToken: 'valid' | 'not_checked'
  readonly subject: 'same' | 'not_checked'
  /** Whom the ID token is about. */
  readonly about: Subject | undefined
}

/**
 * Validates what an issuer returned before anything of it is handed out: an ID token in any case, an access token when it
 * is a JWT meant for the resource behind this server. Any other access token is none of a client's business and is not
 * looked at (RFC 9068 §6), but for one thing: whether it is an ID token in the wrong place.
 *
 * @throws GrantError `token_validation_failed`, whose detail says which check failed; Unavailable when that cannot be told
 * @see OpenID Connect Core 1.0 §3.1.3.7 and §12.2, RFC 6749 §7.1
 */
export async function validateTokens(response: TokenEndpointResponse, context: ValidationContext): Promise<Validated> {
  checkTokenType(response, context)
  const about = await checked('id_token', () => checkIdToken(response, context))
  const accessToken = await checked('access_token', () => checkAccessToken(response, context))
  const isSame = about !== undefined && context.subject !== undefined
  return {
    idToken: about === undefined ? 'absent' : 'valid',
    accessToken: accessToken ? 'valid' : 'not_checked',
    subject: isSame ? 'same' : 'not_checked',
    about,
  }
}

/** Names the token beside the check that it failed. */
async function checked<T>(token: 'id_token' | 'access_token', run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    if (!(error instanceof CodedError) || error instanceof Unavailable) throw error
    throw validationFailed(`${token} ${error.code}`, error.detail)
  }
}

/** RFC 6749 §7.1; what a token exchange yields may be no access token at all (RFC 8693 §2.2.1). */
function checkTokenType({ token_type: type }: TokenEndpointResponse, { client, grant }: ValidationContext): void {
  const name = type.toLowerCase()
  if (client.tokenTypes.has(name) || (grant.type === 'token_exchange' && name === 'n_a')) return
  throw validationFailed('token_type')
}

async function checkIdToken(
  { id_token: idToken, access_token: accessToken }: TokenEndpointResponse,
  { client, grant, subject }: ValidationContext,
): Promise<Subject | undefined> {
  const { nonce, code } = grant.type === 'authorization_code' ? grant : { nonce: undefined, code: undefined }
  if (idToken === undefined) {
    // Whoever gives a nonce relies on its being compared.
    if (nonce !== undefined) throw validationFailed('id_token missing')
    return undefined
  }
  const { accepted, clientId, validation } = client
  const { claim, values } = accepted.expectation.audience
  // The API of this server may stand beside the client.
  const trustedAudiences = claim === 'aud' ? [...client.trustedAudiences, ...values] : client.trustedAudiences
  const context = { accepted, clientId, trustedAudiences, nonce, accessToken, code, subject }
  return toSubject(await validateIdToken(idToken, context, validation.clock.now()))
}

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const JWT = 'urn:ietf:params:oauth:token-type:jwt'

/** @returns whether it was meant for this server, and is valid then */
async function checkAccessToken(response: TokenEndpointResponse, { client }: ValidationContext): Promise<boolean> {
  const { access_token: accessToken, id_token: idToken, issued_token_type: type } = response
  // A token exchange hands out tokens of any type under this name (RFC 8693 §2.2.1).
  if (type !== undefined && type !== ACCESS_TOKEN && type !== JWT) return false
  if (accessToken === idToken) throw validationFailed('access_token is the id_token')
  const claims = readUnverified(accessToken)?.claims
  const issuer = claims && findIssuer(claims, client.validation.issuers)
  if (claims === undefined || issuer === undefined) return false
  const { audience, accessTokenClaims } = issuer.expectation
  if (holdsOneOf(claims['aud'], [client.clientId])) checkKind(claims, accessTokenClaims)
  if (!holdsOneOf(claims[audience.claim], audience.values)) return false
  await client.validation.verifier.verify(accessToken)
  return true
}

function findIssuer(claims: Claims, issuers: readonly AcceptedIssuer[]): AcceptedIssuer | undefined {
  try {
    return createIssuerIndex(issuers).find(claims)
  } catch {
    return undefined
  }
}
