import type { TokenEndpointResponse } from 'oauth4webapi'
import { CodedError, Unavailable } from '../errors.ts'
import { checkKind, holdsOneOf, type Claims } from '../token/claims.ts'
import { createIssuerIndex, type AcceptedIssuer } from '../token/issuers.ts'
import { readUnverified, type UnverifiedJwt } from '../token/jwt.ts'
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
  checkCharacters(response)
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

/** RFC 6749 appendix A.12 and A.17: a line break, in a header field that somebody builds of it, would begin another one. */
const CHARACTERS = /^[ -~]+$/

function checkCharacters({ access_token: accessToken, refresh_token: refreshToken }: TokenEndpointResponse): void {
  if (!CHARACTERS.test(accessToken)) throw validationFailed('access_token characters')
  if (refreshToken !== undefined && !CHARACTERS.test(refreshToken)) throw validationFailed('refresh_token characters')
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

const TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:'
const ACCESS_TOKENS: ReadonlySet<unknown> = new Set([`${TOKEN_TYPE}access_token`, `${TOKEN_TYPE}jwt`])

/** An access token has one of these, whoever issued it; what is for the client itself and has none is an ID token. */
const MARKS = ['scope', 'scp', 'client_id', 'cid', 'azp', 'appid', 'applicationId', 'roles', 'permissions', 'jti'].map(
  (name) => [name],
)

/** @returns whether it was meant for this server, and is valid then */
async function checkAccessToken(
  response: TokenEndpointResponse,
  { client, grant }: ValidationContext,
): Promise<boolean> {
  const { access_token: accessToken, id_token: idToken, issued_token_type: type } = response
  // A token exchange hands out tokens of any type under this name (RFC 8693 §2.2.1).
  if (grant.type === 'token_exchange' && type !== undefined && !ACCESS_TOKENS.has(type)) return false
  if (accessToken === idToken) throw validationFailed('access_token is the id_token')
  const unverified = readUnverified(accessToken)
  const issuer = unverified && findIssuer(unverified.claims, client.validation.issuers)
  if (unverified === undefined || issuer === undefined) return false
  const { claims } = unverified
  const { audience, accessTokenClaims } = issuer.expectation
  if (isForClient(unverified, client)) checkKind(claims, accessTokenClaims.length > 0 ? accessTokenClaims : MARKS)
  if (!holdsOneOf(claims[audience.claim], audience.values)) return false
  await client.validation.verifier.verify(accessToken)
  return true
}

/** Whether it could be an ID token of the client; by its type it may say that it is none (RFC 9068 §2.1). */
function isForClient({ header: { typ }, claims }: UnverifiedJwt, { clientId }: HelperClient): boolean {
  const isMarked = typeof typ === 'string' && /^(?:application\/)?at\+jwt$/i.test(typ)
  return !isMarked && holdsOneOf(claims['aud'], [clientId])
}

function findIssuer(claims: Claims, issuers: readonly AcceptedIssuer[]): AcceptedIssuer | undefined {
  try {
    return createIssuerIndex(issuers).find(claims)
  } catch {
    return undefined
  }
}
