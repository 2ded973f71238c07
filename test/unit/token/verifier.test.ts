import { createExpectation } from '../../fakes/expectation.ts'
import { createHmac } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { CodedError } from '../../../src/errors.ts'
import { createJwksCache } from '../../../src/issuer/jwks-cache.ts'
import { readJwks } from '../../../src/issuer/jwks.ts'
import type { AcceptedIssuer } from '../../../src/token/issuers.ts'
import { createTokenVerifier, type TokenVerifier } from '../../../src/token/verifier.ts'
import { createFakeClock } from '../../fakes/clock.ts'
import {
  AUDIENCE,
  createSigningKey,
  encode,
  goodClaims,
  ISSUER,
  signBytes,
  signJwt,
  type Alg,
} from '../../fakes/signer.ts'

const key = createSigningKey('ES256', 'current')
const rsa = createSigningKey('RS256', 'rsa')
const stranger = createSigningKey('ES256', 'current')

let clock = createFakeClock()
let published = [key.jwk, rsa.jwk]
let fetches = 0
let cacheResults: string[] = []
let verifier: TokenVerifier
let accepted: AcceptedIssuer
let refetch: () => Promise<void>

beforeEach(async () => {
  clock = createFakeClock(1_800_000_000_000)
  published = [key.jwk, rsa.jwk]
  fetches = 0
  cacheResults = []
  let fetched = Promise.withResolvers<void>()
  const keys = createJwksCache({
    issuerName: 'main',
    fetch: () => {
      fetches += 1
      return Promise.resolve({ parsed: readJwks({ keys: published }), freshnessMs: undefined })
    },
    readSeed: undefined,
    refreshIntervalMs: 600_000,
    maxStaleMs: 3_600_000,
    clock,
    onFetch: () => fetched.resolve(),
  })
  keys.start()
  await fetched.promise
  refetch = async () => {
    fetched = Promise.withResolvers<void>()
    clock.advance(10_001)
    await keys.find('not-there', 'ES256')
    await fetched.promise
  }
  accepted = {
    expectation: createExpectation({ issuer: ISSUER, audience: { claim: 'aud', values: [AUDIENCE] } }),
    keys,
  }
  verifier = createTokenVerifier({
    issuers: [accepted],
    maxTokenBytes: 16 * 1024,
    cacheEntries: 100,
    cacheBytes: 1024 * 1024,
    clock,
    onCacheResult: (result) => cacheResults.push(result),
  })
})

const now = () => Math.floor(clock.now() / 1000)
const claims = (more: Record<string, unknown> = {}) => goodClaims(clock.now(), more)

async function codeOf(token: string): Promise<string> {
  try {
    await verifier.verify(token)
  } catch (error) {
    expect(error).toBeInstanceOf(CodedError)
    return (error as CodedError).code
  }
  return 'accepted'
}

describe('a genuine token', () => {
  it('is accepted with its claims, scopes and client', async () => {
    const token = await verifier.verify(signJwt(key, claims({ azp: 'web', scope: 'a b' })))
    expect(token.claims['sub']).toBe('user-1')
    expect(token.scopes).toEqual(['a', 'b'])
    expect(token.clientId).toBe('web')
    expect(token.issuerName).toBe('main')
  })

  it.each<Alg>(['RS256', 'PS256', 'ES256', 'EdDSA'])('signed with %s is accepted', async (alg) => {
    const other = createSigningKey(alg)
    published.push(other.jwk)
    await refetch()
    expect(await codeOf(signJwt(other, claims()))).toBe('accepted')
  })

  it.each(['at+jwt', 'AT+JWT', 'application/at+jwt', 'JWT', undefined])('of type %s is accepted', async (typ) => {
    expect(await codeOf(signJwt(key, claims(), { typ }))).toBe('accepted')
  })

  it('without kid is tried against the keys that fit', async () => {
    expect(await codeOf(signJwt(key, claims(), { kid: undefined }))).toBe('accepted')
  })

  it('with one of several audiences is accepted', async () => {
    expect(await codeOf(signJwt(key, claims({ aud: ['other', AUDIENCE] })))).toBe('accepted')
  })

  it.each([
    ['exp 29 s ago', { exp: -29 }],
    ['nbf in 29 s', { nbf: 29 }],
    ['iat in 29 s', { iat: 29 }],
  ])('with %s is within the tolerance', async (_what, offsets) => {
    const shifted = Object.fromEntries(Object.entries(offsets).map(([name, by]) => [name, now() + by]))
    expect(await codeOf(signJwt(key, claims(shifted)))).toBe('accepted')
  })
})

describe('a token is refused', () => {
  it.each<[string, string, Record<string, unknown>, Record<string, unknown>?]>([
    ['expired', 'token_expired', { exp: -30 }],
    ['not valid yet', 'token_not_yet_valid', { nbf: 31 }],
    ['from the future', 'token_from_the_future', { iat: 31 }],
  ])('%s: %s', async (_what, code, offsets) => {
    const shifted = Object.fromEntries(Object.entries(offsets).map(([name, by]) => [name, now() + (by as number)]))
    expect(await codeOf(signJwt(key, claims(shifted)))).toBe(code)
  })

  it.each<[string, string, Record<string, unknown>]>([
    ['without exp', 'claim_missing', { exp: undefined }],
    ['without aud', 'claim_missing', { aud: undefined }],
    ['without iss', 'claim_missing', { iss: undefined }],
    ['with exp as text', 'claim_invalid', { exp: '9999999999' }],
    ['with exp null', 'claim_invalid', { exp: null }],
    ['with a negative exp', 'claim_invalid', { exp: -1 }],
    ['with nbf as text', 'claim_invalid', { nbf: '1' }],
    ['with iat as a list', 'claim_invalid', { iat: [1] }],
    ['with sub as a list', 'claim_invalid', { sub: ['x'] }],
    ['with iss as a list', 'claim_invalid', { iss: [ISSUER] }],
    ['for another audience', 'audience_mismatch', { aud: 'https://other.test' }],
    ['for no audience', 'audience_mismatch', { aud: [] }],
    ['with an audience that only begins alike', 'audience_mismatch', { aud: `${AUDIENCE}/x` }],
    ['with a number among the audiences', 'claim_invalid', { aud: [AUDIENCE, 1] }],
    ['of another issuer', 'issuer_unknown', { iss: 'https://evil.test/' }],
    ['of the issuer without its slash', 'issuer_unknown', { iss: 'https://issuer.test' }],
  ])('%s: %s', async (_what, code, more) => {
    expect(await codeOf(signJwt(key, claims(more)))).toBe(code)
  })

  it('with exp beyond what a number holds: claim_invalid', async () => {
    const text = JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e400')
    expect(await codeOf(signJwt(key, text))).toBe('claim_invalid')
  })

  it.each<[string, string, Record<string, unknown>]>([
    ['of another type', 'token_type_not_accepted', { typ: 'dpop+jwt' }],
    ['with typ as a number', 'token_malformed', { typ: 1 }],
    ['with crit', 'critical_header_not_supported', { crit: ['exp'], exp: 1 }],
    ['with b64 false', 'critical_header_not_supported', { b64: false }],
    ['without alg', 'token_malformed', { alg: undefined }],
    ['with alg as a list', 'token_malformed', { alg: ['ES256'] }],
    ['with kid as a number', 'token_malformed', { kid: 1 }],
    ['with a huge kid', 'token_malformed', { kid: 'k'.repeat(257) }],
    ['with an algorithm off the list', 'algorithm_not_allowed', { alg: 'ES384' }],
    ['with alg none', 'algorithm_not_allowed', { alg: 'none' }],
    ['with alg NoNe', 'algorithm_not_allowed', { alg: 'NoNe' }],
    ['with the alg of another key', 'algorithm_not_allowed', { kid: 'rsa' }],
    ['with an unknown kid', 'key_unknown', { kid: 'nobody' }],
    ['with a path as kid', 'key_unknown', { kid: '../../../dev/null' }],
    ['with SQL as kid', 'key_unknown', { kid: "' UNION SELECT 'k" }],
  ])('%s: %s', async (_what, code, header) => {
    expect(await codeOf(signJwt(key, claims(), header))).toBe(code)
  })

  it('signed by a stranger under a known kid: signature_invalid', async () => {
    expect(await codeOf(signJwt(stranger, claims()))).toBe('signature_invalid')
  })

  it.each(['jwk', 'jku', 'x5u', 'x5c'])(
    'signed by a stranger who names the key in %s: signature_invalid',
    async (name) => {
      const value = { jwk: stranger.jwk, jku: 'http://127.0.0.1:1/', x5u: 'http://127.0.0.1:1/', x5c: ['MIIB'] }[name]
      expect(await codeOf(signJwt(stranger, claims(), { [name]: value }))).toBe('signature_invalid')
      expect(fetches).toBe(1)
    },
  )

  it('signed with HMAC over the public key, in each of its spellings: algorithm_not_allowed', async () => {
    const spellings = [
      rsa.publicKey.export({ type: 'spki', format: 'pem' }),
      rsa.publicKey.export({ type: 'spki', format: 'der' }),
      rsa.publicKey.export({ type: 'pkcs1', format: 'pem' }),
      JSON.stringify(rsa.jwk),
    ]
    for (const secret of spellings) {
      const input = `${encode({ alg: 'HS256', kid: 'rsa', typ: 'at+jwt' })}.${encode(claims())}`
      const mac = createHmac('sha256', secret).update(input).digest('base64url')
      expect(await codeOf(`${input}.${mac}`)).toBe('algorithm_not_allowed')
    }
  })

  it('with its last character changed, also after the genuine one was remembered', async () => {
    const token = signJwt(rsa, claims())
    expect(await codeOf(token)).toBe('accepted')
    const last = token.at(-1) === 'A' ? 'Q' : 'A'
    expect(await codeOf(token.slice(0, -1) + last)).toMatch(/^(signature_invalid|token_malformed)$/)
    expect(await codeOf(`${token.slice(0, -10)}${'A'.repeat(10)}`)).toBe('signature_invalid')
  })

  it('with a zero signature, or one in DER: signature_invalid', async () => {
    const [header, body, signature] = signJwt(key, claims()).split('.') as [string, string, string]
    expect(await codeOf(`${header}.${body}.${Buffer.alloc(64).toString('base64url')}`)).toBe('signature_invalid')
    const raw = Buffer.from(signature, 'base64url')
    const integer = (part: Buffer) => Buffer.concat([Buffer.from([2, 33, 0]), part])
    const der = Buffer.concat([Buffer.from([48, 70]), integer(raw.subarray(0, 32)), integer(raw.subarray(32))])
    expect(await codeOf(`${header}.${body}.${der.toString('base64url')}`)).toBe('signature_invalid')
  })

  it.each([
    ['empty', ''],
    ['one part', 'abc'],
    ['two parts', 'a.b'],
    ['four parts', 'a.b.c.d'],
    ['five parts', 'a.b.c.d.e'],
    ['no base64url', '!!.!!.!!'],
    ['padding', `${encode({ alg: 'ES256' })}=.e30.AA`],
    ['a list as header', `${encode([])}.e30.AA`],
    ['null as header', `${encode('null')}.e30.AA`],
    ['JSON cut short', `${encode('{"alg":')}.e30.AA`],
    ['no signature', `${encode({ alg: 'none' })}.${encode({})}.`],
    ['invalid UTF-8', `${Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')}.e30.AA`],
    ['stray bits at the end of a part', 'e31.e30.AA'],
    ['the other alphabet', `${encode({ alg: 'ES256' })}.ab+/.AA`],
  ])('with %s: token_malformed', async (_what, token) => {
    expect(await codeOf(token)).toBe('token_malformed')
  })

  it('when larger than allowed, before it is parsed: token_too_large', async () => {
    expect(await codeOf('x'.repeat(16 * 1024 + 1))).toBe('token_too_large')
  })

  it('without a kid when no key fits: key_unknown', async () => {
    const input = `${encode({ alg: 'EdDSA', typ: 'JWT' })}.${encode(claims())}`
    const other = createSigningKey('EdDSA')
    expect(await codeOf(`${input}.${signBytes('EdDSA', other.privateKey, input).toString('base64url')}`)).toBe(
      'key_unknown',
    )
  })
})

describe('a remembered token', () => {
  it('is recognised by its whole text', async () => {
    const token = signJwt(key, claims())
    const first = await verifier.verify(token)
    expect(await verifier.verify(token)).toBe(first)
    expect(cacheResults).toEqual(['miss', 'hit'])
  })

  it('dies with its exp', async () => {
    const token = signJwt(key, claims({ exp: now() + 100 }))
    expect(await codeOf(token)).toBe('accepted')
    clock.advance(129_000)
    expect(await codeOf(token)).toBe('accepted')
    clock.advance(1_000)
    expect(await codeOf(token)).toBe('token_expired')
  })

  it('dies with its key', async () => {
    const token = signJwt(key, claims())
    expect(await codeOf(token)).toBe('accepted')
    published = [rsa.jwk]
    await refetch()
    expect(await codeOf(token)).toBe('key_unknown')
  })

  it('survives a fetch that brings the same key again', async () => {
    const token = signJwt(key, claims())
    await verifier.verify(token)
    await refetch()
    await verifier.verify(token)
    expect(cacheResults).toEqual(['miss', 'hit'])
  })

  it('is not a refused one', async () => {
    const token = signJwt(key, claims({ nbf: now() + 60 }))
    expect(await codeOf(token)).toBe('token_not_yet_valid')
    clock.advance(60_000)
    expect(await codeOf(token)).toBe('accepted')
  })

  it('is another one when a single character differs', async () => {
    const token = signJwt(key, claims())
    await verifier.verify(token)
    const at = token.lastIndexOf('.') + 20
    const changed = `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`
    expect(await codeOf(changed)).toBe('signature_invalid')
    expect(cacheResults).toEqual(['miss', 'miss'])
  })

  it('is verified once when it comes many times at the same moment', async () => {
    const token = signJwt(key, claims())
    const found = await Promise.all(Array.from({ length: 100 }, async () => verifier.verify(token)))
    expect(new Set(found).size).toBe(1)
    expect(verifier.status().entries).toBe(1)
  })

  it('is refused to all when it comes many times at the same moment and is no good', async () => {
    const token = signJwt(stranger, claims())
    const codes = await Promise.all(Array.from({ length: 100 }, () => codeOf(token)))
    expect(new Set(codes)).toEqual(new Set(['signature_invalid']))
    expect(verifier.status().entries).toBe(0)
  })

  it('does not make way for tokens that come once, but for one that comes again', async () => {
    const many = createTokenVerifier({
      ...{ issuers: [accepted], maxTokenBytes: 16 * 1024, cacheEntries: 3, cacheBytes: 1024 * 1024, clock },
      onCacheResult: (result) => cacheResults.push(result),
    })
    const [known, again] = [signJwt(key, claims({ jti: 'known' })), signJwt(key, claims({ jti: 'again' }))]
    await many.verify(known)
    for (let i = 0; i < 10; i += 1) await many.verify(signJwt(key, claims({ jti: `once-${i}` })))
    await many.verify(known)
    expect(cacheResults.splice(0)).toEqual([...Array<string>(11).fill('miss'), 'hit'])

    for (let i = 0; i < 3; i += 1) await many.verify(again)
    expect(cacheResults).toEqual(['miss', 'miss', 'hit'])
    expect(many.status().entries).toBe(3)
  })

  it('does not lend its header: what an issuer accepts is checked again for the next one', async () => {
    await verifier.verify(signJwt(key, claims()))
    const stricter = createTokenVerifier({
      issuers: [{ ...accepted, expectation: { ...accepted.expectation, algorithms: new Set(['RS256']) } }],
      ...{ maxTokenBytes: 16 * 1024, cacheEntries: 100, cacheBytes: 1024 * 1024, clock },
      onCacheResult: () => undefined,
    })
    const verifying = async () => stricter.verify(signJwt(key, claims({ jti: 'next' })))
    await expect(verifying()).rejects.toMatchObject({ code: 'algorithm_not_allowed' })
  })

  it('brings along what was prepared for it, and lives when that failed', async () => {
    const prepared: string[] = []
    const other = createTokenVerifier({
      issuers: [accepted],
      maxTokenBytes: 16 * 1024,
      cacheEntries: 100,
      cacheBytes: 1024 * 1024,
      prepare: (token) => {
        prepared.push(String(token.claims['sub']))
        if (token.claims['sub'] === 'odd') throw new Error('cannot be written')
        token.identity = ['x-auth-subject', String(token.claims['sub'])]
      },
      clock,
      onCacheResult: () => undefined,
    })
    for (const sub of ['even', 'odd']) {
      const text = signJwt(key, claims({ sub }))
      for (let i = 0; i < 2; i += 1) {
        expect((await other.verify(text)).identity).toEqual(sub === 'even' ? ['x-auth-subject', 'even'] : undefined)
      }
    }
    expect(prepared).toEqual(['even', 'odd'])
  })

  it('is of no use to another configuration', async () => {
    const token = signJwt(key, claims())
    await verifier.verify(token)
    const stricter = createTokenVerifier({
      issuers: [
        {
          ...accepted,
          expectation: { ...accepted.expectation, audience: { claim: 'aud', values: ['https://other.test'] } },
        },
      ],
      maxTokenBytes: 16 * 1024,
      cacheEntries: 100,
      cacheBytes: 1024 * 1024,
      clock,
      onCacheResult: () => undefined,
    })
    await expect((async () => stricter.verify(token))()).rejects.toMatchObject({ code: 'audience_mismatch' })
  })
})
