import { refusal } from '../errors.ts'
import type { IssuerKeys, VerificationKey } from '../issuer/jwks-cache.ts'
import { checkClaims, type Claims, type Expectation } from './claims.ts'
import { isSignatureValid } from './signature.ts'

/** An issuer whose tokens are accepted: what they must satisfy, and where its keys are. */
export interface AcceptedIssuer {
  readonly expectation: Expectation
  readonly keys: IssuerKeys
}

export interface VerifiedJwt {
  readonly issuer: AcceptedIssuer
  readonly key: VerificationKey
  readonly claims: Claims
}

/** The header parameters that are looked at. All that name or carry a key (`jwk`, `jku`, `x5u`, `x5c`) are ignored. */
interface ProtectedHeader {
  readonly alg: string
  readonly kid: string | undefined
  readonly type: string
}

/** A `kid` is an opaque label of the issuer's; nobody needs a longer one. */
const MAX_KID_LENGTH = 256
/** How many keys are tried for one token without a `kid`, or with one that several keys share. */
const MAX_CANDIDATES = 4

/**
 * Verifies a signed JWT: form, issuer, type, algorithm, key, signature, claims, in this order.
 *
 * @param issuers - by the exact value of `iss`
 * @throws Refusal with every `token_…`, `…_unknown`, `signature_…`, `algorithm_…`, `critical_…` and `claim_…` code;
 * Unavailable `keys_unavailable`
 * @see RFC 7515 §5.2, RFC 7519 §7.2, RFC 8725 §3, RFC 9068 §4
 */
export async function verifyJwt(
  token: string,
  issuers: ReadonlyMap<string, AcceptedIssuer>,
  nowMs: number,
): Promise<VerifiedJwt> {
  const parts = token.split('.')
  if (parts.length !== 3) throw malformed(parts.length === 5 ? 'encrypted (JWE)' : 'not three parts')
  const header = decodePart(parts[0] as string, 'header')
  const claims = decodePart(parts[1] as string, 'claims set')
  checkBase64Url(parts[2] as string, 'signature')

  const issuer = findIssuer(claims, issuers)
  const { alg, kid } = checkHeader(header, issuer.expectation)
  const key = await verifySignature(token, alg, kid, issuer)
  checkClaims(claims, issuer.expectation, nowMs)
  return { issuer, key, claims }
}

function malformed(reason: string) {
  return refusal('token_malformed', { reason })
}

/** Only the one spelling that an encoder produces: no padding, no other alphabet, no stray bits (RFC 7515 §2). */
function checkBase64Url(part: string, what: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (part === '' || bytes.toString('base64url') !== part) throw malformed(`${what} is not base64url`)
  return bytes
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decodePart(part: string, what: string): Record<string, unknown> {
  const bytes = checkBase64Url(part, what)
  try {
    const value: unknown = JSON.parse(utf8.decode(bytes))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // Falls through: the parser's message would quote the token.
  }
  throw malformed(`${what} is not a JSON object`)
}

function findIssuer(claims: Claims, issuers: ReadonlyMap<string, AcceptedIssuer>): AcceptedIssuer {
  const { iss } = claims
  if (iss === undefined) throw refusal('claim_missing', { claim: 'iss' })
  if (typeof iss !== 'string') throw refusal('claim_invalid', { claim: 'iss' })
  const issuer = issuers.get(iss)
  if (issuer === undefined) throw refusal('issuer_unknown', { issuer: iss, expected: [...issuers.keys()] })
  return issuer
}

function checkHeader(header: Claims, { types, algorithms }: Expectation): ProtectedHeader {
  const { alg, kid, typ } = header
  if (typeof alg !== 'string') throw malformed('alg is not a string')
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > MAX_KID_LENGTH)) throw malformed('kid')
  if (typ !== undefined && typeof typ !== 'string') throw malformed('typ is not a string')
  const type = typ === undefined ? 'absent' : typ.toLowerCase().replace(/^application\//, '')
  if (!types.has(type)) throw refusal('token_type_not_accepted', { type, expected: [...types] })
  // No extension is understood here, `b64` included, so a header that insists on one cannot be processed.
  if (Object.hasOwn(header, 'crit') || Object.hasOwn(header, 'b64')) throw refusal('critical_header_not_supported')
  if (!algorithms.has(alg)) throw refusal('algorithm_not_allowed', { algorithm: alg, expected: [...algorithms] })
  return { alg, kid, type }
}

async function verifySignature(
  token: string,
  alg: string,
  kid: string | undefined,
  { keys, expectation }: AcceptedIssuer,
): Promise<VerificationKey> {
  const candidates = await keys.find(kid, alg)
  if (candidates.length === 0) throw refusal('key_unknown', { issuer: expectation.name, kid: kid ?? '(none)' })
  for (const key of candidates.slice(0, MAX_CANDIDATES)) {
    if (await isSignatureValid(token, key.key, alg)) return key
  }
  throw refusal('signature_invalid', { issuer: expectation.name, kid: kid ?? '(none)' })
}
