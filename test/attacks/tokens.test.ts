import { createHmac } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { createSigningKey, encode, goodClaims, signBytes, signJwt } from '../fakes/signer.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

/** The known tricks with tokens. Each is refused with its code, nothing reaches the backend, and nobody is called. */
const rsa = createSigningKey('RS256', 'rsa')
const ec = createSigningKey('ES256', 'ec')
const own = createSigningKey('RS256', 'rsa')
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
let upstream: FakeUpstream
let sidecar: FakeSidecar
let trap: Server
let calls = 0
let trapUrl = ''

beforeAll(async () => {
  trap = createServer((socket) => {
    calls += 1
    socket.destroy()
  })
  await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve))
  trapUrl = `http://127.0.0.1:${(trap.address() as AddressInfo).port}`
  writeFileSync(join(folder, 'keys.json'), JSON.stringify({ keys: [rsa.jwk, ec.jwk] }))
  upstream = await startUpstream()
  sidecar = await startSidecar({
    config: {
      issuers: [{ issuer: 'https://issuer.test/', audience: 'https://api.test', jwks_file: join(folder, 'keys.json') }],
      upstream: upstream.url,
    },
  })
  await sidecar.ready()
})
afterAll(async () => {
  await stopSidecars()
  await upstream.stop()
  trap.close()
  rmSync(folder, { recursive: true })
})

const claims = (more: Record<string, unknown> = {}) => goodClaims(Date.now(), more)
const now = () => Math.floor(Date.now() / 1000)
const jwt = (header: unknown, payload: unknown, signature = '') => `${encode(header)}.${encode(payload)}.${signature}`

function hmac(secret: string | Buffer, header: Record<string, unknown>): string {
  const input = `${encode(header)}.${encode(claims())}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

const pem = (type: 'spki' | 'pkcs1') => rsa.publicKey.export({ type, format: 'pem' })
const good = () => signJwt(rsa, claims())
const [goodHeader = '', goodPayload = '', goodSignature = ''] = good().split('.')
/** A signature with the last bits changed that base64url ignores. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const respell = (text: string) => text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1) as string) ^ 1]

const ATTACKS: [string, string, () => string][] = [
  ...['none', 'None', 'NONE', 'nOnE', ''].map((alg): [string, string, () => string] => [
    'algorithm_not_allowed',
    `alg "${alg}" with the signature kept`,
    () => jwt({ alg, typ: 'at+jwt' }, claims(), goodSignature),
  ]),
  ['token_malformed', 'alg none without a signature', () => jwt({ alg: 'none', typ: 'at+jwt' }, claims())],
  ...(['spki', 'pkcs1'] as const).flatMap((type): [string, string, () => string][] => [
    [
      'algorithm_not_allowed',
      `HS256 with the public key (${type} PEM)`,
      () => hmac(pem(type), { alg: 'HS256', kid: 'rsa', typ: 'at+jwt' }),
    ],
    [
      'algorithm_not_allowed',
      `HS256 with the public key (${type} PEM, trimmed)`,
      () => hmac(String(pem(type)).trim(), { alg: 'HS256', kid: 'rsa' }),
    ],
    [
      'algorithm_not_allowed',
      `HS256 with the public key (${type} DER)`,
      () => hmac(rsa.publicKey.export({ type, format: 'der' }), { alg: 'HS256', kid: 'rsa' }),
    ],
  ]),
  ['algorithm_not_allowed', 'HS256 with the modulus', () => hmac(String(rsa.jwk['n']), { alg: 'HS256', kid: 'rsa' })],
  ['algorithm_not_allowed', 'HS256 with an empty key', () => hmac('', { alg: 'HS256' })],
  ['algorithm_not_allowed', 'alg in another case', () => signJwt(rsa, claims(), { alg: 'rs256' })],
  ['algorithm_not_allowed', 'the kid of a key for another algorithm', () => signJwt(rsa, claims(), { kid: 'ec' })],
  ['algorithm_not_allowed', 'ES256 named with the RSA key', () => signJwt(rsa, claims(), { alg: 'ES256' })],
  ['algorithm_not_allowed', 'PS256 named where the key is for RS256', () => signJwt(rsa, claims(), { alg: 'PS256' })],
  ['signature_invalid', 'an embedded key', () => signJwt(own, claims(), { jwk: own.jwk })],
  ['signature_invalid', 'an embedded certificate chain', () => signJwt(own, claims(), { x5c: ['MIIB'] })],
  ['signature_invalid', 'jku', () => signJwt(own, claims(), { jku: `${trapUrl}/jwks` })],
  ['signature_invalid', 'x5u', () => signJwt(own, claims(), { x5u: `${trapUrl}/cert` })],
  ...['../../dev/null', "x' UNION SELECT 'AA", '/etc/passwd', 'http://evil', '__proto__', 'constructor', '|id'].map(
    (kid): [string, string, () => string] => ['key_unknown', `kid ${kid}`, () => signJwt(own, claims(), { kid })],
  ),
  ['token_malformed', 'a huge kid', () => signJwt(own, claims(), { kid: 'x'.repeat(300) })],
  ['token_malformed', 'a kid that is a list', () => signJwt(own, claims(), { kid: ['rsa'] })],
  [
    'signature_invalid',
    'a signature of zeros (ES256)',
    () => jwt({ alg: 'ES256', kid: 'ec', typ: 'at+jwt' }, claims(), Buffer.alloc(64).toString('base64url')),
  ],
  [
    'signature_invalid',
    'a DER signature (ES256)',
    () => {
      const input = `${encode({ alg: 'ES256', kid: 'ec' })}.${encode(claims())}`
      return `${input}.${Buffer.concat([Buffer.from([0x30, 6, 2, 1, 0, 2, 1, 0])]).toString('base64url')}`
    },
  ],
  [
    'signature_invalid',
    'a signature too long by one byte (ES256)',
    () => {
      const token = signJwt(ec, claims())
      const [header, payload, signature = ''] = token.split('.')
      return `${header}.${payload}.${Buffer.concat([Buffer.from(signature, 'base64url'), Buffer.from([0])]).toString('base64url')}`
    },
  ],
  ['signature_invalid', 'another payload', () => `${goodHeader}.${encode(claims({ sub: 'admin' }))}.${goodSignature}`],
  [
    'signature_invalid',
    'another header',
    () => `${encode({ alg: 'RS256', kid: 'rsa', typ: 'at+jwt', x: 1 })}.${goodPayload}.${goodSignature}`,
  ],
  [
    'signature_invalid',
    'a signature over the payload alone',
    () =>
      jwt(
        { alg: 'RS256', kid: 'rsa' },
        claims(),
        signBytes('RS256', rsa.privateKey, encode(claims())).toString('base64url'),
      ),
  ],
  ['token_malformed', 'an empty signature', () => `${goodHeader}.${goodPayload}.`],
  [
    'token_malformed',
    'the signature spelled another way',
    () => `${goodHeader}.${goodPayload}.${respell(goodSignature)}`,
  ],
  ['token_malformed', 'padding', () => `${goodHeader}.${goodPayload}.${goodSignature}==`],
  [
    'token_malformed',
    'the plain base64 alphabet',
    () =>
      `${goodHeader}.${encode(claims({ x: '???>>>' }))
        .replaceAll('_', '/')
        .replaceAll('-', '+')}.${goodSignature}`,
  ],
  ['token_malformed', 'four parts', () => `${good()}.x`],
  ['token_malformed', 'two parts', () => `${goodHeader}.${goodPayload}`],
  ['token_malformed', 'five parts (JWE)', () => `${encode({ alg: 'dir', enc: 'A256GCM' })}..AA.AA.AA`],
  [
    'token_malformed',
    'the JSON serialisation',
    () =>
      JSON.stringify({ payload: goodPayload, protected: goodHeader, signature: goodSignature }).replaceAll(',', ';'),
  ],
  [
    'token_malformed',
    'a member twice in the header',
    () => signJwt(rsa, claims(), '{"alg":"none","alg":"RS256","kid":"rsa"}'),
  ],
  [
    'token_malformed',
    'a claim twice',
    () => signJwt(rsa, JSON.stringify(claims()).replace('{', '{"aud":"https://other",')),
  ],
  ['token_malformed', 'deep nesting', () => signJwt(rsa, `{"a":${'['.repeat(500)}${']'.repeat(500)}}`)],
  ['token_malformed', 'a payload that is a list', () => signJwt(rsa, '[]')],
  ['token_malformed', 'a payload that is no JSON', () => signJwt(rsa, 'iss=https://issuer.test/')],
  [
    'token_malformed',
    'a payload that is not UTF-8',
    () => {
      const input = `${encode({ alg: 'RS256', kid: 'rsa' })}.${Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]).toString('base64url')}`
      return `${input}.${signBytes('RS256', rsa.privateKey, input).toString('base64url')}`
    },
  ],
  ['critical_header_not_supported', 'crit', () => signJwt(rsa, claims(), { crit: ['exp'], exp: 1 })],
  ['critical_header_not_supported', 'an empty crit', () => signJwt(rsa, claims(), { crit: [] })],
  ['critical_header_not_supported', 'b64:false', () => signJwt(rsa, claims(), { b64: false, crit: ['b64'] })],
  ['critical_header_not_supported', 'b64:false without crit', () => signJwt(rsa, claims(), { b64: false })],
  ['token_type_not_accepted', 'typ of a logout token', () => signJwt(rsa, claims(), { typ: 'logout+jwt' })],
  ['token_type_not_accepted', 'typ of a DPoP proof', () => signJwt(rsa, claims(), { typ: 'dpop+jwt' })],
  ['token_malformed', 'typ that is a list', () => signJwt(rsa, claims(), { typ: ['at+jwt'] })],
  ['claim_invalid', 'exp as text', () => signJwt(rsa, claims({ exp: `${now() + 600}` }))],
  ['claim_invalid', 'exp for ever', () => signJwt(rsa, claims({ exp: 1e20 }))],
  [
    'claim_invalid',
    'exp beyond numbers',
    () => signJwt(rsa, JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e999')),
  ],
  ['claim_invalid', 'exp below zero', () => signJwt(rsa, claims({ exp: -1 }))],
  ['claim_invalid', 'exp true', () => signJwt(rsa, claims({ exp: true }))],
  ['claim_missing', 'no exp', () => signJwt(rsa, claims({ exp: undefined }))],
  ['token_expired', 'exp 0', () => signJwt(rsa, claims({ exp: 0 }))],
  ['claim_missing', 'no iss', () => signJwt(rsa, claims({ iss: undefined }))],
  ['issuer_unknown', 'iss without its slash', () => signJwt(rsa, claims({ iss: 'https://issuer.test' }))],
  ['issuer_unknown', 'iss in another case', () => signJwt(rsa, claims({ iss: 'https://ISSUER.test/' }))],
  ['issuer_unknown', 'iss with a port', () => signJwt(rsa, claims({ iss: 'https://issuer.test:443/' }))],
  ['issuer_unknown', 'iss __proto__', () => signJwt(rsa, claims({ iss: '__proto__' }))],
  ['claim_invalid', 'iss as a list', () => signJwt(rsa, claims({ iss: ['https://issuer.test/'] }))],
  ['audience_mismatch', 'aud that begins alike', () => signJwt(rsa, claims({ aud: 'https://api.test.evil' }))],
  ['claim_invalid', 'aud as an object', () => signJwt(rsa, claims({ aud: { 'https://api.test': 1 } }))],
  ['audience_mismatch', 'no aud in a list', () => signJwt(rsa, claims({ aud: [] }))],
  ['token_not_yet_valid', 'nbf tomorrow', () => signJwt(rsa, claims({ nbf: now() + 86_400 }))],
  ['token_from_the_future', 'iat tomorrow', () => signJwt(rsa, claims({ iat: now() + 86_400 }))],
  ['id_token_not_accepted', 'an ID token', () => signJwt(rsa, claims({ nonce: 'n' }), { typ: 'JWT' })],
  ['token_too_large', 'seventeen kilobytes', () => signJwt(rsa, claims({ x: 'x'.repeat(17_000) }))],
]

describe('a token', () => {
  it('that is good passes, in all the ways the others do not', async () => {
    for (const token of [
      good(),
      signJwt(ec, claims()),
      signJwt(rsa, claims(), { typ: undefined }),
      signJwt(rsa, claims(), { kid: undefined }),
    ]) {
      const response = await fetch(`${sidecar.proxy}/a`, { headers: { authorization: `bEaReR ${token}` } })
      expect(response.status).toBe(200)
    }
    upstream.requests.splice(0)
  })

  it.each(ATTACKS)('%s: %s', async (code, _what, make) => {
    const token = make()
    const response = await fetch(`${sidecar.proxy}/a`, { headers: { authorization: `Bearer ${token}` } })
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ code })
    expect(response.headers.get('www-authenticate')).toMatch(/^Bearer .*error="invalid_token"/)
    expect(upstream.requests).toEqual([])
    expect(calls).toBe(0)
    expect(sidecar.logText()).not.toContain(token.slice(-40))
  })

  it('that differs from a remembered one in its last letter is not taken for it', async () => {
    const token = signJwt(ec, claims())
    const call = (text: string) => fetch(`${sidecar.proxy}/a`, { headers: { authorization: `Bearer ${text}` } })
    expect((await call(token)).status).toBe(200)
    expect((await call(token)).status).toBe(200)
    for (const letter of ['A', 'Q', 'g', 'w']) {
      if (!token.endsWith(letter)) expect((await call(token.slice(0, -1) + letter)).status).toBe(401)
    }
  })

  it.each([
    ['in the query', (token: string) => `GET /a?access_token=${token} HTTP/1.1\r\nHost: a\r\n\r\n`, 401],
    [
      'in a cookie',
      (token: string) => `GET /a HTTP/1.1\r\nHost: a\r\nCookie: access_token=${token}; Authorization=${token}\r\n\r\n`,
      401,
    ],
    [
      'under another scheme',
      (token: string) => `GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Token ${token}\r\n\r\n`,
      401,
    ],
    [
      'with Basic beside it',
      (token: string) =>
        `GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\nAuthorization: Bearer ${token}\r\n\r\n`,
      400,
    ],
    [
      'twice in one field',
      (token: string) => `GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}, Bearer ${token}\r\n\r\n`,
      400,
    ],
    [
      'under a name with an underscore',
      (token: string) => `GET /a HTTP/1.1\r\nHost: a\r\nX_Authorization: Bearer ${token}\r\n\r\n`,
      401,
    ],
  ])('that is good, %s, is not looked at', async (_what, bytes, status) => {
    upstream.requests.splice(0)
    expect((await sendRaw(sidecar.proxyPort, bytes(good()))).status).toBe(status)
    expect(upstream.requests).toEqual([])
  })
})
