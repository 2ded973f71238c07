import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** One usable public key of an issuer. */
export interface VerificationKey {
  readonly kid: string | undefined
  readonly key: KeyObject
  /** The algorithms it may verify: the JWK's `alg`, or all that fit its type. */
  readonly algorithms: ReadonlySet<string>
  /** The only issuer whose tokens it verifies, `{tenantid}` standing for any tenant; absent for whoever publishes it. */
  readonly issuer: string | undefined
  /** Equal for equal keys, so that a key that is published again is recognised. */
  readonly id: string
}

export interface ParsedKeys {
  readonly keys: readonly VerificationKey[]
  /** Why each other key was left out. */
  readonly skipped: readonly { readonly kid: string; readonly reason: string }[]
}

/** More keys than this are not a key set but an attack or a mistake. */
const MAX_KEYS = 100
const MIN_RSA_BITS = 2048

const RSA_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
const EC_ALGORITHMS: Readonly<Record<string, string>> = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' }

/** A document that cannot replace the keys in use. */
export class JwksError extends Error {
  override readonly name = 'JwksError'
}

/**
 * Reads a JWK Set. A key that cannot verify signatures is left out with a reason and harms no other.
 *
 * @param document - the parsed JSON
 * @param accepted - the algorithms that tokens of this issuer may use; without it, all that are supported
 * @throws JwksError when this is no JWK Set, has more than 100 keys, or holds no key for an accepted algorithm
 * @see RFC 7517 §4 and §5, RFC 8037 for Ed25519
 */
export function readJwks(document: unknown, accepted?: ReadonlySet<string>): ParsedKeys {
  const members = (document as { keys?: unknown } | null)?.keys
  if (!Array.isArray(members)) throw new JwksError('the document is not a JWK Set')
  if (members.length > MAX_KEYS) throw new JwksError(`the JWK Set has ${members.length} keys, more than ${MAX_KEYS}`)
  const keys: VerificationKey[] = []
  const skipped: { kid: string; reason: string }[] = []
  for (const member of members as unknown[]) {
    const result = readJwk(member)
    if (typeof result === 'string') skipped.push({ kid: labelOf(member), reason: result })
    else keys.push(result)
  }
  if (keys.length === 0) throw new JwksError('the JWK Set holds no key that can verify signatures')
  if (
    accepted !== undefined &&
    !keys.some(({ algorithms }) => [...algorithms].some((algorithm) => accepted.has(algorithm)))
  ) {
    const published = [...new Set(keys.flatMap(({ algorithms }) => [...algorithms]))].join(', ')
    throw new JwksError(
      `the JWK Set has keys for ${published} alone, and "algorithms" accepts ${[...accepted].join(', ')}`,
    )
  }
  return { keys, skipped }
}

/**
 * Reads a JWK Set from its JSON text.
 *
 * @throws JwksError as {@link readJwks}, and when the text is no JSON
 */
export function parseJwks(text: string, accepted?: ReadonlySet<string>): ParsedKeys {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    // The parser's message would quote the text.
    throw new JwksError('the JWK Set is not JSON')
  }
  return readJwks(document, accepted)
}

function labelOf(member: unknown): string {
  const kid = (member as { kid?: unknown } | null)?.kid
  return typeof kid === 'string' ? kid.slice(0, 64) : '(none)'
}

/** The usable key, or why it is none. */
function readJwk(member: unknown): VerificationKey | string {
  if (typeof member !== 'object' || member === null) return 'not an object'
  const jwk = member as Record<string, unknown>
  const unfit = readPurpose(jwk)
  if (unfit !== undefined) return unfit
  const { kid, alg } = jwk
  if (kid !== undefined && typeof kid !== 'string') return 'kid is not a string'
  const fitting = fittingAlgorithms(jwk)
  if (fitting.length === 0) return 'type or curve is not supported'
  if (alg === undefined) return importKey(jwk, kid, fitting)
  return fitting.includes(alg as string) ? importKey(jwk, kid, [alg as string]) : 'alg does not fit the key'
}

/** Why the key is not for verifying signatures, if so (RFC 7517 §4.2 and §4.3). */
function readPurpose(jwk: Readonly<Record<string, unknown>>): string | undefined {
  const { use, key_ops: keyOps } = jwk
  // `jwt-svid` is what SPIFFE bundles call a signing key.
  if (use !== undefined && use !== 'sig' && use !== 'jwt-svid') return 'not for signatures (use)'
  if (Array.isArray(keyOps) && !keyOps.includes('verify')) return 'not for verification (key_ops)'
  return 'd' in jwk || 'k' in jwk ? 'not a public key' : undefined
}

function fittingAlgorithms({ kty, crv }: Record<string, unknown>): readonly string[] {
  if (kty === 'RSA') return RSA_ALGORITHMS
  if (kty === 'OKP' && crv === 'Ed25519') return ['EdDSA', 'Ed25519']
  if (kty !== 'EC' || typeof crv !== 'string' || !Object.hasOwn(EC_ALGORITHMS, crv)) return []
  return [EC_ALGORITHMS[crv] as string]
}

function importKey(
  { kty, crv, n, e, x, y, issuer: owner }: Record<string, unknown>,
  kid: string | undefined,
  algorithms: readonly string[],
): VerificationKey | string {
  // Only the members that make up the public key: whatever else the document holds is not looked at.
  const publicMembers = { kty, crv, n, e, x, y }
  try {
    const key = createPublicKey({ key: publicMembers as JsonWebKey, format: 'jwk' })
    if (kty === 'RSA' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < MIN_RSA_BITS) {
      return `RSA key is shorter than ${MIN_RSA_BITS} bits`
    }
    const issuer = typeof owner === 'string' ? owner : undefined
    const id = JSON.stringify([kid, algorithms, publicMembers, issuer])
    return { kid, key, algorithms: new Set(algorithms), issuer, id }
  } catch {
    return 'key material is not valid'
  }
}
