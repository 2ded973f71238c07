import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { createSigningKey, goodClaims, signJwt } from '../fakes/signer.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream

beforeAll(async () => {
  upstream = await startUpstream()
})
afterEach(async () => {
  await stopSidecars()
  await issuer.stop()
})
afterAll(() => upstream.stop())

const call = (sidecar: FakeSidecar, token: string) =>
  fetch(`${sidecar.proxy}/a`, { headers: { authorization: `Bearer ${token}` } })

async function outcome(sidecar: FakeSidecar, token: string): Promise<string> {
  const response = await call(sidecar, token)
  return response.status === 200 ? 'ok' : ((await response.json()) as { code: string }).code
}

const mainIssuer = () => ({ name: 'main', issuer: issuer.issuer, audience: issuer.audience })
const start = (more: Record<string, unknown> = {}, clock?: ReturnType<typeof createFakeClock>) =>
  startSidecar({ config: { issuers: [mainIssuer()], upstream: upstream.url, ...more }, ...(clock && { clock }) })

describe('the issuer rotates its keys while requests come', () => {
  it('a token of the new key makes it look once more; the old ones go on until their key is dropped', async () => {
    issuer = await startAuthorizationServer()
    const clock = createFakeClock()
    const sidecar = await start({}, clock)
    await sidecar.ready()
    const old = issuer.signAccessToken()
    expect(await outcome(sidecar, old)).toBe('ok')
    issuer.rotateKeys()
    clock.advance(11_000)
    const before = issuer.requests.jwks
    const fresh = issuer.signAccessToken()
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => outcome(sidecar, fresh)))
    expect(new Set(outcomes)).toEqual(new Set(['ok']))
    expect(issuer.requests.jwks).toBe(before + 1)
    expect(await outcome(sidecar, old)).toBe('ok')

    issuer.rotateKeys()
    issuer.dropOldKeys()
    clock.advance(11_000)
    expect(await outcome(sidecar, issuer.signAccessToken())).toBe('ok')
    // Remembered, but its key is gone.
    expect(await outcome(sidecar, old)).toBe('key_unknown')
  })

  it('forged key names cost the issuer one fetch per cool-down', async () => {
    issuer = await startAuthorizationServer()
    const sidecar = await start()
    await sidecar.ready()
    const before = issuer.requests.jwks
    const forged = Array.from({ length: 200 }, (_, i) => issuer.signAccessToken({}, { kid: `forged-${i}` }))
    const outcomes = await Promise.all(forged.map((token) => outcome(sidecar, token)))
    expect(new Set(outcomes)).toEqual(new Set(['key_unknown']))
    expect(issuer.requests.jwks).toBeLessThanOrEqual(before + 1)
    expect(await outcome(sidecar, issuer.signAccessToken())).toBe('ok')
  })
})

describe('the issuer is down at the start', () => {
  it('the listener is up, requests get 503, and it becomes ready by itself', async () => {
    issuer = await startAuthorizationServer()
    const token = issuer.signAccessToken()
    await issuer.stop()
    const sidecar = await start()
    const response = await call(sidecar, token)
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
    expect(response.headers.has('www-authenticate')).toBe(false)
    expect(await response.json()).toMatchObject({ code: 'keys_unavailable' })
    // What no key could make good is refused all the same.
    expect(await outcome(sidecar, 'garbage')).toBe('token_malformed')
    const probe = await fetch(`${sidecar.ops}/readyz`)
    expect(probe.status).toBe(503)
    expect(await probe.text()).toContain('keys of issuer main')
    expect((await fetch(`${sidecar.ops}/startupz`)).status).toBe(200)
    await issuer.restart()
    await sidecar.ready()
    expect(await outcome(sidecar, token)).toBe('ok')
    // From then on readiness does not depend on it.
    await issuer.stop()
    expect(await outcome(sidecar, issuer.signAccessToken())).toBe('ok')
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(200)
    await issuer.restart()
  })
})

describe('keys come', () => {
  const key = createSigningKey('ES256')
  const jwks = JSON.stringify({ keys: [key.jwk] })
  const iss = 'https://issuer.example'
  const token = () => signJwt(key, { ...goodClaims(), iss, aud: 'api' })

  it('from a file', async () => {
    issuer = await startAuthorizationServer()
    const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
    writeFileSync(join(folder, 'keys.json'), jwks)
    const sidecar = await start({ issuers: [{ issuer: iss, audience: 'api', jwks_file: join(folder, 'keys.json') }] })
    await sidecar.ready()
    expect(await outcome(sidecar, token())).toBe('ok')
    rmSync(folder, { recursive: true })
  })

  it('from an address of their own, with no metadata asked for', async () => {
    issuer = await startAuthorizationServer()
    const sidecar = await start({ issuers: [{ ...mainIssuer(), jwks_uri: `${issuer.issuer}/jwks` }] })
    await sidecar.ready()
    expect(await outcome(sidecar, issuer.signAccessToken())).toBe('ok')
    expect(issuer.requests.discovery).toBe(0)
  })

  it.each([
    ['RFC 8414 metadata, between host and path', '/.well-known/oauth-authorization-server/tenant'],
    ['OpenID Connect metadata, after the path', '/tenant/.well-known/openid-configuration'],
  ])('by %s', async (_what, place) => {
    issuer = await startAuthorizationServer()
    const server = createServer((request, response) => {
      const base = `http://${request.headers.host}`
      const bodies: Record<string, string> = {
        [place]: JSON.stringify({ issuer: `${base}/tenant`, jwks_uri: `${base}/keys` }),
        '/keys': jwks,
      }
      const body = bodies[request.url ?? '']
      response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'application/json' }).end(body)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const own = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tenant`
    const sidecar = await start({ issuers: [{ issuer: own, audience: 'api' }] })
    await sidecar.ready()
    expect(await outcome(sidecar, signJwt(key, { ...goodClaims(), iss: own, aud: 'api' }))).toBe('ok')
    server.close()
    server.closeAllConnections()
  })
})

describe('several issuers', () => {
  it('each have their own audience and keys', async () => {
    issuer = await startAuthorizationServer({ audience: 'one' })
    const second = await startAuthorizationServer({ audience: 'two', alg: 'ES256' })
    const issuers = [mainIssuer(), { name: 'second', issuer: second.issuer, audience: 'two' }]
    const sidecar = await start({ issuers })
    await sidecar.ready()
    expect(await outcome(sidecar, issuer.signAccessToken())).toBe('ok')
    expect(await outcome(sidecar, second.signAccessToken())).toBe('ok')
    expect(await outcome(sidecar, issuer.signAccessToken({ aud: 'two' }))).toBe('audience_mismatch')
    expect(await outcome(sidecar, second.signAccessToken({ iss: issuer.issuer, aud: 'one' }))).toBe('key_unknown')
    await second.stop()
  })
})
