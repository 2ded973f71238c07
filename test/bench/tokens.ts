import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createSigningKey, goodClaims, signJwt, type Alg } from '../fakes/signer.ts'

/** Tokens of one key, in files with one a line; no token is in both. */
export interface TokenFiles {
  /** The public key. */
  readonly jwk: Record<string, unknown>
  /** Few, to be seen again and again. */
  readonly warm: string
  /** Many, to be seen once. */
  readonly cold: string
}

/** Makes a key and signs tokens with it. */
export function signTokens(alg: Alg, folder: string, counts: { warm: number; cold: number }): TokenFiles {
  const key = createSigningKey(alg)
  const write = (name: 'warm' | 'cold'): string => {
    const file = join(folder, `${alg}-${name}.txt`)
    const tokens = Array.from({ length: counts[name] }, (_, i) => signJwt(key, benchClaims(`${name}-${i}`)))
    writeFileSync(file, tokens.join('\n'))
    return file
  }
  return { jwk: key.jwk, warm: write('warm'), cold: write('cold') }
}

/** As many claims as tokens of real issuers have, good for an hour. */
export function benchClaims(id: string): Record<string, unknown> {
  const nowMs = Date.now()
  return goodClaims(nowMs, {
    sub: `auth0|${id}`,
    exp: Math.floor(nowMs / 1000) + 3600,
    jti: id,
    azp: 'client-1',
    scope: 'read:orders write:orders openid profile',
    permissions: ['read:orders', 'write:orders'],
    org_id: `org_${id}`,
    'https://example.com/roles': ['admin', 'user'],
    gty: 'client-credentials',
  })
}
