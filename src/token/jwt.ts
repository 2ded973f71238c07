import { refusal } from '../errors.ts'
import type { VerificationKey } from '../issuer/jwks-cache.ts'
import { checkClaims, type Claims, type Expectation } from './claims.ts'
import { fillTenant, type AcceptedIssuer, type IssuerIndex } from './issuers.ts'
import { readObject } from './json.ts'
import { isSignatureValid, isSignatureValidNow } from './signature.ts'

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
 * Verifies a signed JWT: form, issuer, type, algorithm, key, signature, claims, in this order. At once when the key is known
 * and there is time for the signature in this turn of the event loop.
 *
 * @throws (or rejects with) Refusal with every `token_…`, `…_unknown`, `signature_…`, `algorithm_…`, `critical_…` and `claim_…` code;
 * Unavailable `keys_unavailable`
 * @see RFC 7515 §5.2, RFC 7519 §7.2, RFC 8725 §3, RFC 9068 §4
 */
export function verifyJwt(token: string, issuers: IssuerIndex, nowMs: number): VerifiedJwt | Promise<VerifiedJwt> {
  const parts = token.split('.')
  if (parts.length !== 3) throw malformed(describeForm(token, parts.length))
  const header = readHeader(parts[0] as string)
  const claims = decodePart(parts[1] as string, 'claims set')
  if (parts[2] === '') throw malformed('not signed')
  checkBase64Url(parts[2] as string, 'signature')

  const issuer = issuers.find(claims)
  const { alg, kid } = checkHeader(header, issuer.expectation)
  const signed: Signed = { token, alg, kid, claims, issuer }
  const accept = (key: VerificationKey): VerifiedJwt => {
    checkClaims(claims, issuer.expectation, nowMs)
    rememberHeader(parts[0] as string, header)
    return { issuer, key, claims }
  }
  const found = issuer.keys.find(kid, alg)
  const key = found instanceof Promise ? found.then((late) => findSigner(signed, late)) : findSigner(signed, found)
  return key instanceof Promise ? key.then(accept) : accept(key)
}

/** A JWT as it describes itself: nothing of it is verified, and it may be anybody's. */
export interface UnverifiedJwt {
  readonly header: Claims
  readonly claims: Claims
}

/**
 * Reads a JWT without verifying it, to tell what verification it needs. What only resembles one is read as well, so that
 * the verification gets to refuse it.
 *
 * @returns undefined for what is no signed JWT in compact form: opaque, encrypted, or without two JSON objects
 */
export function readUnverified(token: string): UnverifiedJwt | undefined {
  const parts = token.split('.')
  if (parts.length !== 3) return undefined
  const [header, claims] = parts.slice(0, 2).map((part) => readObject(Buffer.from(part, 'base64url')))
  if (header === undefined || claims === undefined) return undefined
  return typeof header === 'string' || typeof claims === 'string' ? undefined : { header, claims }
}

function malformed(reason: string) {
  return refusal('token_malformed', { reason })
}

const BASE64URL = /^[A-Za-z0-9_-]+$/
/** The last character of a text whose length leaves this remainder by four: its low bits stand for nothing and are zero. */
const LAST = [/./, /^(?!)/, /[AQgw]$/, /[AEIMQUYcgkosw048]$/] as const

/** Only the one spelling that an encoder produces: no padding, no other alphabet, no stray bits (RFC 7515 §2). */
function checkBase64Url(part: string, what: string): void {
  if (!BASE64URL.test(part) || !(LAST[part.length % 4] as RegExp).test(part))
    throw malformed(`${what} is not base64url`)
}

/** Says for the log what a credential is that is no JWT, and what to do about it. */
function describeForm(token: string, parts: number): string {
  if (token.startsWith('ya29.')) return 'an access token of Google, which only Google can read: send an ID token'
  if (parts === 5)
    return 'encrypted (JWE): ask the issuer for a signed token, at Auth0 by naming the audience of the API'
  return parts === 1
    ? 'opaque: ask the issuer for a JWT, at Auth0 by naming the audience of the API'
    : 'not three parts'
}

/** Headers of genuine tokens, decoded: an issuer writes one for each of its keys, over and over again. */
const knownHeaders = new Map<string, Record<string, unknown>>()
const MAX_KNOWN_HEADERS = 64
const MAX_KNOWN_HEADER_LENGTH = 1024

function readHeader(part: string): Record<string, unknown> {
  return knownHeaders.get(part) ?? decodePart(part, 'header')
}

/** To be called when the signature was right: otherwise forged headers would take the place of real ones. */
function rememberHeader(part: string, header: Record<string, unknown>): void {
  if (part.length > MAX_KNOWN_HEADER_LENGTH || knownHeaders.has(part)) return
  if (knownHeaders.size >= MAX_KNOWN_HEADERS) knownHeaders.clear()
  // A copy: a part of a text keeps all of it in memory, and that is the token.
  knownHeaders.set(Buffer.from(part, 'latin1').toString('latin1'), header)
}

function decodePart(part: string, what: string): Record<string, unknown> {
  checkBase64Url(part, what)
  const result = readObject(Buffer.from(part, 'base64url'))
  if (typeof result === 'string') throw malformed(`${what} ${result}`)
  return result
}

function checkHeader(header: Claims, { types, algorithms }: Expectation): ProtectedHeader {
  const { alg, kid, typ } = header
  if (typeof alg !== 'string') throw malformed('alg is not a string')
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > MAX_KID_LENGTH)) throw malformed('kid')
  if (typ !== undefined && typeof typ !== 'string') throw malformed('typ is not a string')
  const type = typ === undefined ? 'absent' : typ.toLowerCase().replace(/^application\//, '')
  if (!types.has(type)) throw refusal('token_type_not_accepted', { type, expected: [...types], ...hintAtType(type) })
  // No extension is understood here, `b64` included, so a header that insists on one cannot be processed.
  if (Object.hasOwn(header, 'crit') || Object.hasOwn(header, 'b64')) throw refusal('critical_header_not_supported')
  if (!algorithms.has(alg)) throw refusal('algorithm_not_allowed', { algorithm: alg, expected: [...algorithms] })
  return { alg, kid, type }
}

function hintAtType(type: string): { hint?: string } {
  if (!type.startsWith('okta-internal')) return {}
  return { hint: 'a token of the Okta org authorization server, which only Okta can verify: use a custom one' }
}

interface Signed {
  readonly token: string
  readonly alg: string
  readonly kid: string | undefined
  readonly claims: Claims
  readonly issuer: AcceptedIssuer
}

/** Finds which of the keys with the right label signed a token. */
function findSigner(signed: Signed, found: readonly VerificationKey[]): VerificationKey | Promise<VerificationKey> {
  const { token, alg, claims } = signed
  // A key that names its issuer is for that one alone (Entra publishes the keys of all tenants in one set).
  const candidates = found.filter((key) => key.issuer === undefined || fillTenant(key.issuer, claims) === claims['iss'])
  if (candidates.length === 0) throw refusal('key_unknown', describe(signed))
  for (const [i, key] of candidates.slice(0, MAX_CANDIDATES).entries()) {
    const valid = isSignatureValidNow(token, key.key, alg)
    if (valid === undefined) return findSignerLater(signed, candidates.slice(i, MAX_CANDIDATES))
    if (valid) return key
  }
  throw refusal('signature_invalid', describe(signed))
}

async function findSignerLater(signed: Signed, candidates: readonly VerificationKey[]): Promise<VerificationKey> {
  for (const key of candidates) {
    if (await isSignatureValid(signed.token, key.key, signed.alg)) return key
  }
  throw refusal('signature_invalid', describe(signed))
}

function describe({ issuer, kid }: Signed) {
  return { issuer: issuer.expectation.name, kid: kid ?? '(none)' }
}
