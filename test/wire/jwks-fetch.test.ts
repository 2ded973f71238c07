import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createAuthority } from '../fakes/certificates.ts'
import { createFakeClock, type FakeClock } from '../fakes/clock.ts'
import { answering, jwksOf, publishing, startKeyServer, type KeyHandler, type KeyServer } from '../fakes/key-server.ts'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt, type SigningKey } from '../fakes/signer.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const MINUTE = 60_000
const key = createSigningKey('ES256', 'one')
const next = createSigningKey('ES256', 'two')

let upstream: FakeUpstream
let folder: string

beforeAll(async () => {
  upstream = await startUpstream()
})
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-'))))
afterEach(async () => {
  await stopSidecars()
  rmSync(folder, { recursive: true })
})
afterAll(() => upstream.stop())

async function start(...parameters: Parameters<typeof startKeyServer>): Promise<KeyServer> {
  const server = await startKeyServer(...parameters)
  onTestFinished(() => server.stop())
  return server
}

interface Scene {
  readonly clock: FakeClock
  readonly sidecar: FakeSidecar
  readonly get: (by: SigningKey, claims?: Record<string, unknown>) => Promise<number>
}

async function setScene(settings: Record<string, unknown>): Promise<Scene> {
  const clock = createFakeClock()
  const sidecar = await startSidecar({
    config: { issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, ...settings }], upstream: upstream.url },
    clock,
  })
  return {
    clock,
    sidecar,
    async get(by, claims = {}) {
      const authorization = `Bearer ${signJwt(by, goodClaims(clock.now(), claims))}`
      return (await fetch(sidecar.proxy, { headers: { authorization } })).status
    },
  }
}

const reasons = (sidecar: FakeSidecar) =>
  sidecar.logLines().flatMap(({ reason }) => (typeof reason === 'string' ? [reason] : []))

describe('keys are fetched', () => {
  it('again only when they changed, by their entity tag', async () => {
    let published = jwksOf(key)
    const statuses: number[] = []
    const server = await start((request, response) => {
      const tag = `"${published.length}"`
      const status = request.headers['if-none-match'] === tag ? 304 : 200
      statuses.push(status)
      response
        .writeHead(status, { etag: tag, 'cache-control': 'max-age=300' })
        .end(status === 200 ? published : undefined)
    })
    const { clock, sidecar, get } = await setScene({ jwks_uri: server.url })
    await sidecar.ready()
    for (let round = 2; round <= 3; round += 1) {
      clock.advance(5 * MINUTE)
      await vi.waitFor(() => expect(statuses).toHaveLength(round))
      expect(await get(key)).toBe(200)
    }
    expect(statuses).toEqual([200, 304, 304])
    await vi.waitFor(async () =>
      expect(await sidecar.metrics()).toContain('bearward_jwks_fetches_total{issuer="main",result="success"} 3'),
    )
    published = jwksOf(key, next)
    clock.advance(5 * MINUTE)
    await vi.waitFor(async () => expect(await get(next)).toBe(200))
  })

  it('without a condition for an unknown kid, so that a tag that never changes hides no key', async () => {
    let published = jwksOf(key)
    const server = await start((request, response) => {
      const same = request.headers['if-none-match'] === '"always"'
      response.writeHead(same ? 304 : 200, { etag: '"always"' }).end(same ? undefined : published)
    })
    const { sidecar, get } = await setScene({ jwks_uri: server.url })
    await sidecar.ready()
    published = jwksOf(key, next)
    expect(await get(next)).toBe(200)
  })

  it('from wherever the metadata says, also on another host, and once more when that moved', async () => {
    const [here, there] = [await start(publishing(key)), await start(publishing(next))]
    let jwksUri = here.url
    const metadata: KeyHandler = (request, response) => {
      const issuer = `http://127.0.0.1:${discovery.port}`
      if (request.url !== '/.well-known/openid-configuration') return void response.writeHead(404).end()
      response.end(JSON.stringify({ issuer, jwks_uri: jwksUri }))
    }
    const discovery = await start(metadata)
    const issuer = `http://127.0.0.1:${discovery.port}`
    const { clock, sidecar, get } = await setScene({ issuer })
    await sidecar.ready()
    expect(await get(key, { iss: issuer })).toBe(200)
    await here.stop()
    jwksUri = there.url
    clock.advance(8.5 * MINUTE)
    await vi.waitFor(() => expect(reasons(sidecar)).toHaveLength(1))
    // Known metadata outlives an issuer that does not answer, so the keys can still be fetched when it comes to that.
    clock.advance(MINUTE)
    await vi.waitFor(async () => expect(await get(next, { iss: issuer })).toBe(200))
    await discovery.stop()
    clock.advance(65 * MINUTE)
    await vi.waitFor(() => expect(there.requests.length).toBeGreaterThanOrEqual(2))
    expect(await get(next, { iss: issuer })).toBe(200)
    await Promise.all([here.restart(), discovery.restart()])
  })
})

describe('a Kubernetes API server', () => {
  const authority = createAuthority('cluster')

  /** It shows its keys to whoever has the token, over TLS that only the cluster vouches for. */
  async function setUp(handler: KeyHandler = publishing(key)) {
    const files = { token: join(folder, 'token'), ca: join(folder, 'ca.crt') }
    const state = { token: 'service-account.token.1' }
    writeFileSync(files.token, `${state.token}\n`)
    writeFileSync(files.ca, authority.certificate)
    const server = await start((request, response) => {
      const admitted = request.headers.authorization === `Bearer ${state.token}`
      return admitted ? handler(request, response) : answering(401, '{"reason":"Unauthorized"}')(request, response)
    }, authority.issue('127.0.0.1'))
    return { files, state, server }
  }

  it('gives its keys for a token and a certificate from files, which are read again', async () => {
    const { files, state, server } = await setUp()
    const { clock, sidecar, get } = await setScene({
      jwks_uri: server.url,
      jwks_bearer_token_file: files.token,
      ca_file: files.ca,
    })
    await sidecar.ready()
    expect(await get(key)).toBe(200)
    expect(server.requests[0]?.headers.accept).toBe('application/jwk-set+json, application/json')

    state.token = 'service-account.token.2'
    writeFileSync(files.token, state.token)
    const before = server.requests.length
    clock.advance(8.5 * MINUTE)
    await vi.waitFor(async () => expect(await sidecar.metrics()).toMatch(/result="success"} 2\n/))
    expect(server.requests.length).toBeGreaterThan(before)
    expect(sidecar.logText()).not.toContain('service-account')
  })

  it('that refuses the token is named in the log, the token is not', async () => {
    const { files, server } = await setUp()
    writeFileSync(files.token, 'other.token')
    const settings = { jwks_uri: server.url, ca_file: files.ca, jwks_bearer_token_file: files.token }
    const { clock, sidecar } = await setScene(settings)
    await vi.waitFor(() => expect(reasons(sidecar)).toHaveLength(1))
    expect(reasons(sidecar)[0]).toBe('the address of the keys answered 401 in spite of jwks_bearer_token_file')
    for (const [content, expected] of [
      ['two words', 'the file of jwks_bearer_token_file does not hold a bearer token'],
      ['', 'the file of jwks_bearer_token_file does not hold a bearer token'],
      [undefined, 'the file of jwks_bearer_token_file cannot be read (ENOENT)'],
    ] as const) {
      if (content === undefined) rmSync(files.token)
      else writeFileSync(files.token, content)
      const count = reasons(sidecar).length
      clock.advance(10_000)
      await vi.waitFor(() => expect(reasons(sidecar)).toHaveLength(count + 1))
      expect(reasons(sidecar).at(-1)).toBe(expected)
    }
    expect(sidecar.logText()).not.toMatch(/other\.token|two words/)
  })

  it('and the host its metadata names do not both see the token', async () => {
    const elsewhere = await start(publishing(key), authority.issue('127.0.0.1'))
    const { files, server } = await setUp((_request, response) => {
      const issuer = `https://127.0.0.1:${server.port}`
      response.end(JSON.stringify({ issuer, jwks_uri: elsewhere.url }))
    })
    const issuer = `https://127.0.0.1:${server.port}`
    const { sidecar, get } = await setScene({ issuer, jwks_bearer_token_file: files.token, ca_file: files.ca })
    await sidecar.ready()
    expect(await get(key, { iss: issuer })).toBe(200)
    expect(server.requests[0]?.headers.authorization).toBe('Bearer service-account.token.1')
    expect(elsewhere.requests).toHaveLength(1)
    expect(elsewhere.requests[0]?.headers).not.toHaveProperty('authorization')
  })

  it('with a certificate that nobody vouches for is not talked to', async () => {
    const { files, server } = await setUp()
    const { sidecar, get } = await setScene({ jwks_uri: server.url, jwks_bearer_token_file: files.token })
    await vi.waitFor(() => expect(reasons(sidecar)).toHaveLength(1))
    expect(reasons(sidecar)[0]).toMatch(/an authority that is not known; name that in ca_file/)
    expect(await get(key)).toBe(503)
    expect(server.requests).toEqual([])
  })
})

describe('a seed file', () => {
  it('lets the sidecar start without its issuer, says so, and gives way to the issuer', async () => {
    const file = join(folder, 'seed.json')
    writeFileSync(file, jwksOf(key))
    const server = await start(publishing(next))
    await server.stop()
    const { clock, sidecar, get } = await setScene({ jwks_uri: server.url, jwks_seed_file: file })
    await sidecar.ready()
    expect(await get(key)).toBe(200)
    expect(sidecar.logLines()).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        msg: 'keys taken from the seed file until the issuer answers',
        keys: 1,
      }),
    )
    expect(await sidecar.metrics()).toContain('bearward_jwks_state{issuer="main",state="stale"} 1')
    await server.restart()
    clock.advance(10_000)
    await vi.waitFor(async () => expect(await get(next)).toBe(200))
    expect(await get(key)).toBe(401)
  })

  it('that is no good is an error in the log from the start, and no more than that', async () => {
    const file = join(folder, 'seed.json')
    writeFileSync(file, '{"keys":[]}')
    const server = await start(publishing(key))
    const { sidecar, get } = await setScene({ jwks_uri: server.url, jwks_seed_file: file })
    await sidecar.ready()
    expect(await get(key)).toBe(200)
    await vi.waitFor(() =>
      expect(sidecar.logLines()).toContainEqual(
        expect.objectContaining({
          level: 'error',
          msg: 'the seed file cannot be used',
          reason: 'jwks_seed_file: the JWK Set holds no key that can verify signatures',
        }),
      ),
    )
  })

  it('that is not there, or larger than a MiB, is named as such', async () => {
    const server = await start(publishing(key))
    const large = join(folder, 'large.json')
    writeFileSync(large, jwksOf(key) + ' '.repeat(1024 * 1024))
    for (const [file, reason] of [
      [join(folder, 'nothing.json'), 'jwks_seed_file: it cannot be read (ENOENT)'],
      [large, 'jwks_seed_file: it is larger than 1 MiB'],
      [folder, 'jwks_seed_file: it cannot be read (EISDIR)'],
    ] as const) {
      const { sidecar } = await setScene({ jwks_uri: server.url, jwks_seed_file: file })
      await vi.waitFor(() => expect(reasons(sidecar)).toContain(reason))
    }
  })
})

describe('a file of keys', () => {
  it('is read again, and the keys last read are used while it is broken', async () => {
    const file = join(folder, 'keys.json')
    writeFileSync(file, jwksOf(key))
    const { clock, sidecar, get } = await setScene({ jwks_file: file })
    await sidecar.ready()
    writeFileSync(file, jwksOf(key, next).slice(0, 100))
    clock.advance(8.5 * MINUTE)
    await vi.waitFor(() => expect(reasons(sidecar)).toEqual(['jwks_file: the JWK Set is not JSON']))
    expect(await get(key)).toBe(200)
    writeFileSync(file, jwksOf(next))
    clock.advance(MINUTE)
    await vi.waitFor(async () => expect(await get(next)).toBe(200))
    expect(await get(key)).toBe(401)
  })
})
