import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { JwksError, parseJwks, readJwks } from '../../../src/issuer/jwks.ts'
import { createSigningKey } from '../../fakes/signer.ts'

const good = createSigningKey('RS256', 'good')
const ec = createSigningKey('ES256', 'ec')

describe('a JWK Set', () => {
  it.each([
    ['null', null],
    ['a list', []],
    ['an object without keys', {}],
    ['no keys', { keys: [] }],
    ['only unusable keys', { keys: [{ kty: 'oct', k: 'AAAA' }] }],
    ['too many keys', { keys: Array.from({ length: 101 }, () => good.jwk) }],
  ])('that is %s is refused', (_what, document) => {
    expect(() => readJwks(document)).toThrow(JwksError)
  })

  it.each<[string, unknown, string]>([
    ['an encryption key', { ...good.jwk, use: 'enc', alg: 'RSA-OAEP' }, 'not for signatures (use)'],
    ['a key for signing only', { ...good.jwk, key_ops: ['sign'] }, 'not for verification (key_ops)'],
    ['a symmetric key', { kty: 'oct', k: 'c2VjcmV0', alg: 'HS256' }, 'not a public key'],
    ['a private key', { ...good.privateKey.export({ format: 'jwk' }), kid: 'x' }, 'not a public key'],
    ['an unknown type', { kty: 'LATTICE', kid: 'x' }, 'type or curve is not supported'],
    ['an unknown curve', { ...ec.jwk, crv: 'secp256k1' }, 'type or curve is not supported'],
    [
      'a curve named like a member of every object',
      { kty: 'EC', crv: 'constructor' },
      'type or curve is not supported',
    ],
    ['an algorithm of another type', { ...good.jwk, alg: 'ES256' }, 'alg does not fit the key'],
    ['broken material', { ...ec.jwk, x: 'AAAA' }, 'key material is not valid'],
    ['material of the wrong kind', { ...good.jwk, n: 1 }, 'key material is not valid'],
    ['kid as a number', { ...good.jwk, kid: 7 }, 'kid is not a string'],
    ['null', null, 'not an object'],
    [
      'a short RSA key',
      generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' }),
      'RSA key is shorter than 2048 bits',
    ],
  ])('with %s keeps the others and says why', (_what, odd, reason) => {
    const { keys, skipped } = readJwks({ keys: [odd, good.jwk] })
    expect(keys.map(({ kid }) => kid)).toEqual(['good'])
    expect(skipped.map((one) => one.reason)).toEqual([reason])
  })

  it('without a key for an accepted algorithm is refused, and says what there is', () => {
    expect(() => readJwks({ keys: [ec.jwk] }, new Set(['RS256', 'PS256']))).toThrow(
      'the JWK Set has keys for ES256 alone, and "algorithms" accepts RS256, PS256',
    )
    expect(readJwks({ keys: [ec.jwk, good.jwk] }, new Set(['RS256'])).keys).toHaveLength(2)
  })

  it('that is no JSON is refused without quoting it', () => {
    expect(() => parseJwks('<html>secret')).toThrow('the JWK Set is not JSON')
  })

  it('may leave out alg: the key then serves every algorithm of its type', () => {
    const { alg: _alg, ...jwk } = good.jwk
    const [key] = readJwks({ keys: [jwk] }).keys
    expect([...(key?.algorithms ?? [])]).toEqual(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'])
  })

  it('may hold two keys of one kid, and SPIFFE’s use', () => {
    const { keys } = readJwks({ keys: [good.jwk, { ...ec.jwk, kid: 'good', use: 'jwt-svid' }] })
    expect(keys.map(({ kid }) => kid)).toEqual(['good', 'good'])
  })
})
