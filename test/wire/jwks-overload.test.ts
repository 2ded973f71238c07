import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isSignatureValid } from '../../src/token/signature.ts'
import { publishing, startKeyServer, type KeyServer } from '../fakes/key-server.ts'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt } from '../fakes/signer.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const key = createSigningKey('ES256')
const slow = createSigningKey('ES384')

let upstream: FakeUpstream
let keys: KeyServer
let sidecar: FakeSidecar

beforeAll(async () => {
  upstream = await startUpstream()
  keys = await startKeyServer(publishing(key, slow))
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_uri: keys.url }],
      upstream: upstream.url,
    },
  })
  await sidecar.ready()
})
afterAll(async () => {
  await stopSidecars()
  await keys.stop()
  await upstream.stop()
})

let serial = 0
const get = (token: string) => fetch(sidecar.proxy, { headers: { authorization: `Bearer ${token}` } })
const token = () => signJwt(key, goodClaims(Date.now(), { jti: String((serial += 1)) }))

describe('more signatures than can be checked', () => {
  it('make new tokens come again in a second, harm no remembered one, and leave nothing behind', async () => {
    const remembered = token()
    expect((await get(remembered)).status).toBe(200)

    // Keeps the queue full: whenever a check ends, others take its place.
    const forged = `${'x'.repeat(100)}.${'y'.repeat(100)}.${randomBytes(96).toString('base64url')}`
    let running = true
    const pending = new Set<Promise<unknown>>()
    const fill = () => {
      // A few more than can run and wait.
      while (running && pending.size < 1_040) {
        const check: Promise<unknown> = isSignatureValid(forged, slow.publicKey, 'ES384').then(
          () => pending.delete(check),
          () => pending.delete(check),
        )
        pending.add(check)
      }
      if (running) setImmediate(fill)
    }
    fill()

    // Together they are more than the places that become free meanwhile.
    let answer: Response | undefined
    while (answer === undefined) {
      const answers = await Promise.all(Array.from({ length: 50 }, () => get(token())))
      answer = answers.find(({ status }) => status !== 200)
    }
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('1')
    expect(answer.headers.has('www-authenticate')).toBe(false)
    expect(await answer.json()).toMatchObject({ code: 'overloaded' })
    expect(sidecar.logLines()).toContainEqual(
      expect.objectContaining({ code: 'overloaded', level: 'warn', status: 503 }),
    )
    expect((await get(remembered)).status).toBe(200)

    running = false
    await Promise.all(pending)
    expect((await get(token())).status).toBe(200)
  })
})
