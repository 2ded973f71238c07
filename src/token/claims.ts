import { refusal, type Detail } from '../errors.ts'

/** The claims set of a token (RFC 7519 §4), as parsed. */
export type Claims = Readonly<Record<string, unknown>>

/** What a token of one issuer must satisfy. */
export interface Expectation {
  /** Name of the issuer in configuration, logs and metrics. */
  readonly name: string
  /** The exact value of `iss`. */
  readonly issuer: string
  /** `aud` must hold one of these. */
  readonly audiences: readonly string[]
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
 * Checks `aud`, `exp`, `nbf` and `iat` of a verified claims set; `iss` was checked when the issuer was looked up.
 *
 * @throws Refusal `claim_missing`, `claim_invalid`, `audience_mismatch`, `token_expired`, `token_not_yet_valid`,
 * `token_from_the_future`
 * @see RFC 7519 §4.1, RFC 8725 §3.8 and §3.9
 */
export function checkClaims(claims: Claims, expectation: Expectation, nowMs: number): void {
  checkAudience(claims, expectation)
  checkTimes(claims, expectation, nowMs)
  const sub = claims['sub']
  if (sub !== undefined && typeof sub !== 'string') throw refusal('claim_invalid', { claim: 'sub' })
}

function checkAudience(claims: Claims, { audiences }: Expectation): void {
  const { aud } = claims
  if (aud === undefined) throw refusal('claim_missing', { claim: 'aud' })
  const values: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (!values.every((value) => typeof value === 'string')) throw refusal('claim_invalid', { claim: 'aud' })
  if (!values.some((value) => audiences.includes(value))) {
    throw refusal('audience_mismatch', { audience: values, expected: audiences })
  }
}

/**
 * The checks against the clock alone. Repeated for every request that presents a token, also one that was verified before.
 *
 * @throws Refusal `claim_missing`, `claim_invalid`, `token_expired`, `token_not_yet_valid`, `token_from_the_future`
 */
export function checkTimes(claims: Claims, { clockToleranceSeconds }: Expectation, nowMs: number): void {
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
}

function since(name: string, seconds: number): Detail {
  return { [name]: Math.round(seconds) }
}

/** A NumericDate (RFC 7519 §2): a JSON number of seconds; a string of digits is not one. */
function readNumericDate(claims: Claims, name: 'exp' | 'nbf' | 'iat'): number | undefined {
  const value = claims[name]
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) throw refusal('claim_invalid', { claim: name })
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

/** The OAuth client a token was issued to, by whichever claim the issuer names it: `client_id`, `azp` or `cid`. */
export function readClientId(claims: Claims): string | undefined {
  const value = claims['client_id'] ?? claims['azp'] ?? claims['cid']
  return typeof value === 'string' ? value : undefined
}
