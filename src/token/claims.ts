import { refusal, type Detail } from '../errors.ts'

/** The claims set of a token (RFC 7519 §4), as parsed. */
export type Claims = Readonly<Record<string, unknown>>

type Scalar = string | number | boolean

/** What a token of one issuer must satisfy. */
export interface Expectation {
  /** Name of the issuer in configuration, logs and metrics. */
  readonly name: string
  /** The exact value of `iss`. */
  readonly issuer: string
  /** Other exact values of `iss`. */
  readonly aliases: readonly string[]
  /** For an issuer that holds `{tenantid}`: accepted values of `tid`; `any` for all of them. */
  readonly tenants: ReadonlySet<string> | 'any'
  /** The claim must hold one of the values. */
  readonly audience: { readonly claim: 'aud' | 'client_id' | 'azp'; readonly values: readonly string[] }
  /** What callers send; as `access_token`, whatever calls itself an ID token is refused. */
  readonly kind: 'access_token' | 'id_token'
  /** Paths of claims of which an access token has at least one, and an ID token none; empty when there is no such mark. */
  readonly accessTokenClaims: readonly (readonly string[])[]
  /** Claims that must be there, with one of the values if there are any. */
  readonly required: readonly { readonly path: readonly string[]; readonly anyOf: readonly Scalar[] | undefined }[]
  /** Paths of claims that must not be there. */
  readonly forbidden: readonly (readonly string[])[]
  /** Longest time since `iat`, in seconds. */
  readonly maxAgeSeconds: number | undefined
  /** Earliest accepted `iat`, in seconds since 1970. */
  readonly minIat: number | undefined
  /** Paths of the claims that hold roles and permissions. */
  readonly roles: readonly (readonly string[])[]
  readonly permissions: readonly (readonly string[])[]
  /** Accepted `alg` values; asymmetric ones only. */
  readonly algorithms: ReadonlySet<string>
  /** Accepted `typ` values, in lower case and without `application/`; `absent` stands for a token without `typ`. */
  readonly types: ReadonlySet<string>
  /** How far clocks may differ, in seconds; 0 to 300. */
  readonly clockToleranceSeconds: number
}

/** The value at a path of member names, or `undefined`; only an object's own members are seen. */
export function readPath(claims: Claims, path: readonly string[]): unknown {
  let value: unknown = claims
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

/**
 * Checks kind, audience, times and further claims of a verified claims set; `iss` was checked when the issuer was looked
 * up.
 *
 * @throws Refusal `claim_missing`, `claim_invalid`, `claim_not_accepted`, `id_token_not_accepted`, `audience_mismatch`,
 * `token_expired`, `token_not_yet_valid`, `token_from_the_future`, `token_too_old`
 * @see RFC 7519 §4.1, RFC 8725 §3.8, §3.9 and §3.12
 */
export function checkClaims(claims: Claims, expectation: Expectation, nowMs: number): void {
  if (expectation.kind === 'access_token') checkKind(claims, expectation.accessTokenClaims)
  checkAudience(claims, expectation.audience)
  checkTimes(claims, expectation, nowMs)
  const { sub } = claims
  if (sub !== undefined && typeof sub !== 'string') throw refusal('claim_invalid', { claim: 'sub' })
  for (const { path, anyOf } of expectation.required) checkRequired(claims, path, anyOf)
  for (const path of expectation.forbidden) {
    if (readPath(claims, path) !== undefined) throw refusal('claim_not_accepted', { claim: path, reason: 'forbidden' })
  }
}

/** Hashes that tie an ID token to what it came with (OpenID Connect Core §3.1.3.6 and §3.3.2.11). */
const ID_TOKEN_HASHES = ['at_hash', 'c_hash', 's_hash']

/**
 * Refuses what calls itself something else than an access token, by whichever mark its issuer uses.
 *
 * @throws Refusal `id_token_not_accepted`
 */
export function checkKind(claims: Claims, marks: Expectation['accessTokenClaims']): void {
  const { token_use: use, typ } = claims
  // Keycloak says so in a claim beside the header parameter, and puts a `nonce` into access tokens, too.
  const kind = typeof typ === 'string' ? typ.toLowerCase() : undefined
  if (kind !== undefined && OTHER_KINDS.has(kind)) throw kindRefusal('typ', kind)
  if (use !== undefined && use !== 'access') throw kindRefusal('token_use', String(use))
  const hash = ID_TOKEN_HASHES.find((name) => claims[name] !== undefined)
  if (hash !== undefined) throw kindRefusal(hash, 'present')
  if (claims['nonce'] !== undefined && kind !== 'bearer') throw kindRefusal('nonce', 'present')
  if (marks.length > 0 && marks.every((path) => isAbsent(readPath(claims, path)))) {
    throw kindRefusal(marks.map((path) => path.join('/')).join(', '), 'absent')
  }
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null
}

const OTHER_KINDS = new Set(['id', 'refresh', 'offline', 'logout'])

function kindRefusal(claim: string, value: string) {
  return refusal('id_token_not_accepted', { claim, value })
}

function checkAudience(claims: Claims, { claim, values: expected }: Expectation['audience']): void {
  const value = claims[claim]
  if (value === undefined) throw refusal('claim_missing', { claim, expected })
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (!values.every((one) => typeof one === 'string')) throw refusal('claim_invalid', { claim })
  if (!values.some((one) => expected.includes(one))) {
    throw refusal('audience_mismatch', { claim, audience: values, expected })
  }
}

function checkRequired(claims: Claims, path: readonly string[], anyOf: readonly Scalar[] | undefined): void {
  const value = readPath(claims, path)
  if (isAbsent(value)) throw refusal('claim_missing', { claim: path })
  if (anyOf !== undefined && !holdsOneOf(value, anyOf)) {
    throw refusal('claim_not_accepted', { claim: path, expected: anyOf.map(String) })
  }
}

/** Whether a claim is one of the values, or a list that holds one of them. */
export function holdsOneOf(value: unknown, anyOf: readonly Scalar[]): boolean {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  return values.some((one) => (anyOf as readonly unknown[]).includes(one))
}

/**
 * The checks against the clock alone. Repeated for every request that presents a token, also one that was verified before.
 *
 * @throws Refusal `claim_missing`, `claim_invalid`, `token_expired`, `token_not_yet_valid`, `token_from_the_future`
 */
export function checkTimes(claims: Claims, expectation: Expectation, nowMs: number): void {
  const { clockToleranceSeconds } = expectation
  const now = nowMs / 1000
  const exp = readNumericDate(claims, 'exp')
  if (exp === undefined) throw refusal('claim_missing', { claim: 'exp' })
  if (now >= exp + clockToleranceSeconds) throw refusal('token_expired', since('expired_s', now - exp))
  const nbf = readNumericDate(claims, 'nbf')
  if (nbf !== undefined && now < nbf - clockToleranceSeconds) {
    throw refusal('token_not_yet_valid', since('valid_in_s', nbf - now))
  }
  const iat = readNumericDate(claims, 'iat')
  if (iat !== undefined && now < iat - clockToleranceSeconds) {
    throw refusal('token_from_the_future', since('ahead_s', iat - now))
  }
  checkAge(iat, expectation, now)
}

function checkAge(iat: number | undefined, expectation: Expectation, now: number): void {
  const { maxAgeSeconds, minIat, clockToleranceSeconds } = expectation
  if (maxAgeSeconds === undefined && minIat === undefined) return
  if (iat === undefined) throw refusal('claim_missing', { claim: 'iat' })
  if (minIat !== undefined && iat < minIat) throw refusal('token_too_old', { iat, min_iat: minIat })
  if (maxAgeSeconds !== undefined && now >= iat + maxAgeSeconds + clockToleranceSeconds) {
    throw refusal('token_too_old', since('age_s', now - iat))
  }
}

function since(name: string, seconds: number): Detail {
  return { [name]: Math.round(seconds) }
}

/** The end of the year 9999, in seconds: later moments are mistakes, or attempts at a token that never expires. */
const LAST_MOMENT = 253_402_300_799

/** A NumericDate (RFC 7519 §2): a JSON number of seconds; a string of digits is not one. */
function readNumericDate(claims: Claims, name: 'exp' | 'nbf' | 'iat'): number | undefined {
  const value = claims[name]
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !(value >= 0 && value <= LAST_MOMENT))
    throw refusal('claim_invalid', { claim: name })
  return value
}

/**
 * The scopes of a token: `scope` as a space-delimited string (RFC 9068 §2.2.3), or `scp` as a string or a list, where an
 * element is one scope and never split. Roles and permissions are not scopes and stay out.
 */
export function readScopes(claims: Claims): readonly string[] {
  const value = claims['scope'] ?? claims['scp']
  if (typeof value === 'string') return value.split(' ').filter((scope) => scope !== '')
  if (Array.isArray(value)) return value.filter((scope): scope is string => typeof scope === 'string')
  return []
}

/**
 * The names found at some places of the claims: elements of a list, a text as one name, or the member names of an object
 * (Zitadel's roles). Kept apart from scopes, so that a role named like a scope grants nothing.
 */
export function readNames(claims: Claims, paths: readonly (readonly string[])[]): readonly string[] {
  if (paths.length === 0) return []
  const names = paths.flatMap((path): readonly unknown[] => {
    const value = readPath(claims, path)
    if (Array.isArray(value)) return value
    if (typeof value === 'object' && value !== null) return Object.keys(value)
    return [value]
  })
  return [...new Set(names.filter((name): name is string => typeof name === 'string' && name !== ''))]
}

/** The OAuth client a token was issued to, by whichever claim the issuer names it: `client_id`, `azp`, `cid`, `appid` or `applicationId`. */
export function readClientId(claims: Claims): string | undefined {
  const value = claims['client_id'] ?? claims['azp'] ?? claims['cid'] ?? claims['appid'] ?? claims['applicationId']
  return typeof value === 'string' ? value : undefined
}
