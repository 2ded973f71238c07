import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createFakeClock, type FakeClock } from '../fakes/clock.ts'
import { answering, jwksOf, publishing, startKeyServer, type KeyHandler, type KeyServer } from '../fakes/key-server.ts'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt, type SigningKey } from '../fakes/signer.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

const key = createSigningKey('RS256', 'rsa')
const ec = createSigningKey('ES256', 'ec')
const ed = createSigningKey('EdDSA', 'ed')

let upstream: FakeUpstream
/** Must never be asked: where redirects and headers of tokens would lead. */
let elsewhere: KeyServer

beforeAll(async () => {
  upstream = await startUpstream()
  elsewhere = await startKeyServer(publishing(key))
})
afterAll(async () => {
  await stopSidecars()
  await upstream.stop()
  await elsewhere.stop()
  expect(elsewhere.requests).toEqual([])
})

interface Scene {
  readonly keys: KeyServer
  readonly clock: FakeClock
  readonly sidecar: FakeSidecar
  /** A new token of a key, never presented before. */
  readonly token: (by?: SigningKey, header?: Record<string, unknown>) => string
  readonly get: (token: string) => Promise<Response>
  /** Moves on to the next scheduled fetch, and waits until it ended. */
  readonly nextFetch: () => Promise<void>
}

type SceneSettings = Record<string, unknown> & { readonly isDown?: boolean }

async function setScene(handler: KeyHandler, { isDown, ...settings }: SceneSettings = {}): Promise<Scene> {
  const keys = await startKeyServer(handler)
  if (isDown === true) await keys.stop()
  const clock = createFakeClock()
  const sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_uri: keys.url, ...settings }],
      upstream: upstream.url,
    },
    clock,
  })
  let serial = 0
  return {
    keys,
    clock,
    sidecar,
    token: (by = key, header = {}) => signJwt(by, goodClaims(clock.now(), { jti: String((serial += 1)) }), header),
    get: (token) => fetch(sidecar.proxy, { headers: { authorization: `Bearer ${token}` } }),
    async nextFetch() {
      const lines = fetchLines(sidecar)
      clock.advance(Number(lines.at(-1)?.['retry_in_ms'] ?? REFRESH_MS))
      await ended(sidecar, lines.length + 1)
    },
  }
}

/** The latest that keys are fetched again which came with no word about how fresh they are. */
const REFRESH_MS = 8.5 * MINUTE

const ended = (sidecar: FakeSidecar, count: number) =>
  vi.waitFor(() => expect(fetchLines(sidecar).length).toBeGreaterThanOrEqual(count), { timeout: 15_000, interval: 5 })

/** What the log says about fetches: one line each. */
const fetchLines = ({ logLines }: FakeSidecar) => logLines().filter(({ msg }) => String(msg).startsWith('keys '))

const silent: KeyHandler = () => undefined
const dripping: KeyHandler = (_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  const timer = setInterval(() => response.write(' '), 50)
  response.on('close', () => clearInterval(timer))
}
const enormous: KeyHandler = (_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  const chunk = Buffer.alloc(64 * 1024, ' ')
  let left = 800
  const pour = () => {
    while (left > 0 && !response.destroyed) {
      left -= 1
      if (!response.write(chunk)) return void response.once('drain', pour)
    }
    response.end(jwksOf(key))
  }
  pour()
}
const zipped: KeyHandler = (_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' })
  response.end(gzipSync(Buffer.alloc(100 * 1024 * 1024, ' ')))
}
const cutOff: KeyHandler = (_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' })
  response.write(jwksOf(key), () => response.destroy())
}
const redirecting: KeyHandler = (_request, response) =>
  response.writeHead(302, { location: elsewhere.url, 'content-type': 'text/plain' }).end('moved')

/** How an issuer can fail, and what the log says about it. */
const FAILURES: readonly [string, KeyHandler | 'refuses', RegExp][] = [
  ['refuses connections', 'refuses', /nothing listens at its address|closed the connection/],
  ['accepts and says nothing', silent, /did not answer in time/],
  ['drips a byte at a time', dripping, /did not answer in time/],
  ['closes the connection', (_request, response) => void response.destroy(), /closed the connection/],
  ['cuts its answer off', cutOff, /closed the connection|aborted|TERMINATED/i],
  ['answers 500', answering(500, 'broken'), /answered 500/],
  ['answers 404', answering(404, '{}'), /answered 404/],
  ['answers 401', answering(401, '{}'), /answered 401; it may need jwks_bearer_token_file/],
  ['redirects', redirecting, /answered 302; redirects are not followed/],
  ['answers 304 to a question it was not asked', answering(304, ''), /answered 304/],
  ['answers with a page', answering(200, '<html>maintenance</html>', { 'content-type': 'text/html' }), /not JSON/],
  ['answers with nothing', answering(200, ''), /not JSON/],
  ['publishes no keys', answering(200, '{"keys":[]}'), /holds no key/],
  ['publishes something else', answering(200, '[1,2]'), /is not a JWK Set/],
  ['publishes an encryption key alone', publishing({ jwk: { ...key.jwk, use: 'enc' } }), /holds no key/],
  ['publishes a symmetric key alone', publishing({ jwk: { kty: 'oct', k: 'c2VjcmV0' } }), /holds no key/],
  [
    'publishes a private key',
    publishing({ jwk: key.privateKey.export({ format: 'jwk' }) as object } as never),
    /holds no key/,
  ],
  ['publishes keys that no token may be signed with', publishing(ec), /keys for ES256 alone/],
  ['publishes 101 keys', publishing(...Array.from({ length: 101 }, () => key)), /has 101 keys/],
  ['sends 50 MB', enormous, /larger than 1 MiB/],
  ['sends 100 MB, compressed', zipped, /compressed, which was not asked for/],
]

describe.concurrent.each(FAILURES)('while the issuer %s', (_what, failure, reason) => {
  const settings = { algorithms: ['RS256'] }

  it('nothing valid is refused that was accepted before', async ({ onTestFinished }) => {
    const { keys, sidecar, token, get, nextFetch } = await setScene(publishing(key), settings)
    onTestFinished(() => keys.stop())
    await sidecar.ready()
    const remembered = token()
    expect((await get(remembered)).status).toBe(200)
    if (failure === 'refuses') await keys.stop()
    else keys.answer(failure)
    await nextFetch()
    expect(fetchLines(sidecar).at(-1)).toMatchObject({
      level: 'warn',
      issuer: 'main',
      reason: expect.stringMatching(reason) as string,
    })
    expect((await get(remembered)).status).toBe(200)
    expect((await get(token())).status).toBe(200)
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(200)
  })

  it('a start without keys answers 503, and all is well by itself when the issuer is', async ({ onTestFinished }) => {
    const scene = await setScene(failure === 'refuses' ? silent : failure, {
      ...settings,
      isDown: failure === 'refuses',
    })
    const { keys, sidecar, token, get, nextFetch } = scene
    onTestFinished(() => keys.stop())
    await ended(sidecar, 1)
    const response = await get(token())
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
    expect(response.headers.has('www-authenticate')).toBe(false)
    expect(await response.json()).toMatchObject({ code: 'keys_unavailable' })
    expect(sidecar.lastRequest()).toMatchObject({ code: 'keys_unavailable', detail: { issuer: 'main', keys: 'empty' } })
    expect(await (await fetch(`${sidecar.ops}/readyz`)).text()).toBe('not ready: keys of issuer main\n')
    if (failure === 'refuses') await keys.restart()
    keys.answer(publishing(key))
    await nextFetch()
    await sidecar.ready()
    expect((await get(token())).status).toBe(200)
  })
})

describe('a set that is merely odd', () => {
  const other = createSigningKey('RS256', 'rsa')
  const { alg: _alg, ...bare } = key.jwk
  const { kid: _kid, ...nameless } = key.jwk

  it.each<[string, string, () => readonly [SigningKey, Record<string, unknown>?][], readonly string[]]>([
    [
      'an Ed25519 key, an encryption key, a symmetric one, an unknown one and broken ones beside the good',
      JSON.stringify({
        keys: [
          { kty: 'LATTICE', kid: 'future' },
          { ...key.jwk, kid: 'enc', use: 'enc', alg: 'RSA-OAEP' },
          { kty: 'oct', kid: 'secret', k: 'c2VjcmV0' },
          { ...ec.jwk, kid: 'broken', x: 'AAAA' },
          'no key at all',
          ed.jwk,
          key.jwk,
        ],
      }),
      () => [[key], [ed]],
      [
        'future: type or curve is not supported',
        'enc: not for signatures (use)',
        'secret: not a public key',
        'broken: key material is not valid',
        '(none): not an object',
      ],
    ],
    ['two keys of one kid', jwksOf(other, key), () => [[key], [other]], []],
    ['a key twice', jwksOf(key, key), () => [[key]], []],
    ['a key without alg', JSON.stringify({ keys: [bare] }), () => [[key]], []],
    ['keys without kid', JSON.stringify({ keys: [nameless, ed.jwk] }), () => [[key, { kid: undefined }], [ed]], []],
    [
      'more than keys',
      JSON.stringify({ public_cert: {}, keys: [{ ...key.jwk, x5c: ['AAAA'], issuer: ISSUER }] }),
      () => [[key]],
      [],
    ],
  ])('with %s works', async (_what, body, accepted, skipped) => {
    const { sidecar, token, get, keys } = await setScene(answering(200, body, { 'content-type': 'text/plain' }))
    await sidecar.ready()
    for (const [by, header] of accepted()) expect((await get(token(by, header))).status).toBe(200)
    expect(fetchLines(sidecar)).toEqual([expect.objectContaining({ msg: 'keys loaded', level: 'info', skipped })])
    await keys.stop()
  })
})

describe('a long outage', () => {
  it('of an hour refuses no valid token; one past the limit answers 503, and ends by itself', async ({
    onTestFinished,
  }) => {
    const { keys, clock, sidecar, token, get, nextFetch } = await setScene(publishing(key), { jwks_max_stale: '2h' })
    onTestFinished(() => keys.stop())
    await sidecar.ready()
    const beganMs = clock.now()
    const remembered = signJwt(key, goodClaims(beganMs, { exp: Math.floor(beganMs / 1000) + 86_400 }))
    const statuses = new Set([(await get(remembered)).status])
    await keys.stop()
    while (clock.now() < beganMs + HOUR) {
      await nextFetch()
      for (const each of [remembered, token()]) statuses.add((await get(each)).status)
    }
    expect(statuses).toEqual(new Set([200]))
    const metrics = await sidecar.metrics()
    expect(metrics).toContain('bearward_jwks_state{issuer="main",state="stale"} 1')
    expect(metrics).toContain('bearward_jwks_state{issuer="main",state="fresh"} 0')
    const age = Number(/bearward_jwks_age_seconds\{issuer="main"\} (\d+)/.exec(metrics)?.[1])
    expect(age).toBeGreaterThanOrEqual(3600)
    expect(fetchLines(sidecar).at(-1)).toMatchObject({
      msg: 'keys could not be fetched; the old ones are used on',
      level: 'warn',
      state: 'stale',
      age_seconds: age,
    })

    clock.advance(HOUR + 10 * MINUTE)
    for (const each of [remembered, token()]) {
      const response = await get(each)
      expect(response.status).toBe(503)
      expect(await response.json()).toMatchObject({ code: 'keys_unavailable' })
    }
    await nextFetch()
    expect(fetchLines(sidecar).at(-1)).toMatchObject({ level: 'error', state: 'expired' })
    // Ready all the same: taking every pod out of service would help nobody.
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(200)
    expect(await sidecar.metrics()).toContain('bearward_jwks_state{issuer="main",state="expired"} 1')

    await keys.restart()
    await nextFetch()
    for (const each of [remembered, token()]) expect((await get(each)).status).toBe(200)
    expect(fetchLines(sidecar).at(-1)).toMatchObject({ level: 'info', msg: 'keys can be fetched again' })
  })
})
