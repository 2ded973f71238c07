import { createHash, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'

export type Alg = 'RS256' | 'RS384' | 'PS256' | 'ES256' | 'ES384' | 'EdDSA'

/** A key pair of an issuer, with the JWK it would publish. */
export interface SigningKey {
  readonly kid: string
  readonly alg: Alg
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly jwk: Record<string, unknown>
}

let counter = 0

/** Makes a key pair for an algorithm. */
export function createSigningKey(alg: Alg = 'ES256', kid?: string): SigningKey {
  const { privateKey, publicKey } = generate(alg)
  const name = kid ?? `key-${(counter += 1)}`
  return {
    kid: name,
    alg,
    privateKey,
    publicKey,
    jwk: { ...publicKey.export({ format: 'jwk' }), kid: name, alg, use: 'sig' },
  }
}

function generate(alg: Alg) {
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' })
  if (alg === 'ES384') return generateKeyPairSync('ec', { namedCurve: 'P-384' })
  if (alg === 'EdDSA') return generateKeyPairSync('ed25519')
  return generateKeyPairSync('rsa', { modulusLength: 2048 })
}

export const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

/** Signs bytes the way a JWS of this algorithm does. */
export function signBytes(alg: Alg, key: KeyObject, input: string): Buffer {
  const data = Buffer.from(input)
  if (alg === 'EdDSA') return sign(null, data, key)
  const digest = `sha${alg.slice(2)}`
  if (alg.startsWith('ES')) return sign(digest, data, { key, dsaEncoding: 'ieee-p1363' })
  if (alg.startsWith('PS')) return sign(digest, data, { key, padding: 6, saltLength: Number(alg.slice(2)) / 8 })
  return sign(digest, data, key)
}

/** A JWT; members given as `undefined` are left out. Header and claims may be text, to sign what no library would. */
export function signJwt(
  key: SigningKey,
  claims: Record<string, unknown> | string,
  header: Record<string, unknown> | string = {},
): string {
  const protectedHeader = typeof header === 'string' ? header : { alg: key.alg, kid: key.kid, typ: 'at+jwt', ...header }
  const input = `${encode(protectedHeader)}.${encode(claims)}`
  return `${input}.${signBytes(key.alg, key.privateKey, input).toString('base64url')}`
}

export const ISSUER = 'https://issuer.test/'
export const AUDIENCE = 'https://api.test'

/** Claims that pass, for the given time. */
export function goodClaims(nowMs = Date.now(), more: Record<string, unknown> = {}): Record<string, unknown> {
  const now = Math.floor(nowMs / 1000)
  return { iss: ISSUER, aud: AUDIENCE, sub: 'user-1', iat: now, exp: now + 600, scope: 'read:orders', ...more }
}

/** SHA-256 in hex. */
export function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}
