import { createHash } from 'node:crypto'
import { refusal } from '../errors.ts'
import { readPath, type Claims } from '../token/claims.ts'
import { createIssuerIndex, type AcceptedIssuer } from '../token/issuers.ts'
import { readUnverified, verifyJwt } from '../token/jwt.ts'
import { toSubject, type Subject } from './subjects.ts'

/** What an ID token is held against. */
export interface IdTokenContext {
  readonly accepted: AcceptedIssuer
  readonly clientId: string
  /** What may stand in `aud` beside the client. */
  readonly trustedAudiences: readonly string[]
  /** What the caller sent with the authorization request, if it says so. */
  readonly nonce: string | undefined
  /** What came with it. */
  readonly accessToken: string
  /** The code it was issued for, if it was. */
  readonly code: string | undefined
  /** Whom the grant is known to be about. */
  readonly subject: Subject | undefined
}

/** A client may tell a stale token by its `iat` (§3.1.3.7 no. 10); none that was just issued is older, in seconds. */
const OLDEST_SECONDS = 24 * 60 * 60

/**
 * Validates an ID token that came from the token endpoint.
 *
 * @throws Refusal with the codes of `verifyJwt`, whose claims are named in the detail; Unavailable `keys_unavailable` and
 * `overloaded`
 * @see OpenID Connect Core 1.0 §3.1.3.7, §3.1.3.8, §3.3.2.11 and §12.2
 */
export async function validateIdToken(idToken: string, context: IdTokenContext, nowMs: number): Promise<Claims> {
  const { accepted } = context
  const { claims } = await verifyJwt(idToken, createIssuerIndex([toExpected(context)]), nowMs)
  checkKind(claims, accepted.expectation.accessTokenClaims)
  checkIdentity(claims)
  checkParties(claims, context)
  checkNonce(claims, context.nonce)
  const alg = String(readUnverified(idToken)?.header['alg'])
  checkHash(claims, 'at_hash', alg, context.accessToken)
  if (context.code !== undefined) checkHash(claims, 'c_hash', alg, context.code)
  checkSubject(claims, context.subject)
  return claims
}

/** The issuer as it is configured, with what differs between its access tokens and its ID tokens. */
function toExpected({ accepted: { expectation, keys }, clientId }: IdTokenContext): AcceptedIssuer {
  return {
    keys,
    expectation: {
      ...expectation,
      audience: { claim: 'aud', values: [clientId] },
      kind: 'id_token',
      types: new Set(['jwt', 'absent']),
      required: [],
      forbidden: [],
      maxAgeSeconds: OLDEST_SECONDS,
    },
  }
}

/** Refuses what calls itself something else than an ID token, by whichever mark its issuer uses. */
function checkKind(claims: Claims, marks: readonly (readonly string[])[]): void {
  const { token_use: use, typ } = claims
  if (use !== undefined && use !== 'id') throw notAccepted('token_use')
  if (typ !== undefined && (typeof typ !== 'string' || typ.toLowerCase() !== 'id')) throw notAccepted('typ')
  // `azp` marks the access tokens of some issuers, but an ID token may have it as well.
  const mark = marks.find((path) => path.join() !== 'azp' && readPath(claims, path) !== undefined)
  if (mark !== undefined) throw notAccepted(mark.join('/'))
}

function checkIdentity({ sub, exp, iat }: Claims): void {
  if (sub === undefined) throw refusal('claim_missing', { claim: 'sub' })
  if (sub === '') throw refusal('claim_invalid', { claim: 'sub' })
  if (Number(exp) <= Number(iat)) throw notAccepted('exp')
}

function checkParties({ aud, azp }: Claims, { clientId, trustedAudiences }: IdTokenContext): void {
  const others = (Array.isArray(aud) ? (aud as unknown[]) : [aud]).filter((one) => one !== clientId)
  if (!others.every((one) => (trustedAudiences as readonly unknown[]).includes(one))) {
    throw refusal('audience_mismatch', { claim: 'aud', audience: others.map(String), expected: [...trustedAudiences] })
  }
  if (azp === undefined && others.length > 0) throw refusal('claim_missing', { claim: 'azp' })
  if (azp !== undefined && azp !== clientId) throw notAccepted('azp')
}

function checkNonce({ nonce }: Claims, expected: string | undefined): void {
  if (expected === undefined) return
  if (nonce === undefined) throw refusal('claim_missing', { claim: 'nonce' })
  if (nonce !== expected) throw notAccepted('nonce')
}

/** The left half of the digest that belongs to the algorithm of the signature; for EdDSA that is SHA-512. */
function checkHash(claims: Claims, claim: 'at_hash' | 'c_hash', alg: string, text: string): void {
  const value = claims[claim]
  if (value === undefined) return
  const size = /^[A-Z]{2}(256|384|512)$/.exec(alg)?.[1] ?? '512'
  const digest = createHash(`sha${size}`).update(text, 'ascii').digest()
  if (value !== digest.subarray(0, digest.length / 2).toString('base64url')) throw notAccepted(claim)
}

function checkSubject(claims: Claims, expected: Subject | undefined): void {
  if (expected !== undefined && toSubject(claims) !== expected) throw notAccepted('sub')
}

function notAccepted(claim: string) {
  return refusal('claim_not_accepted', { claim })
}
