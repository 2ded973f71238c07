import { randomBytes } from 'node:crypto'
import { request as sendRequest, Agent } from 'node:http'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createFakeClock, type FakeClock } from '../fakes/clock.ts'
import { answering, jwksOf, publishing, startKeyServer, type KeyHandler, type KeyServer } from '../fakes/key-server.ts'
import { AUDIENCE, createSigningKey, encode, goodClaims, ISSUER, signJwt, type SigningKey } from '../fakes/signer.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND

let upstream: FakeUpstream
const agent = new Agent({ keepAlive: true })

beforeAll(async () => {
  upstream = await startUpstream((_request, response) => response.end('ok'))
})
afterAll(async () => {
  agent.destroy()
  await stopSidecars()
  await upstream.stop()
})

interface Scene {
  readonly keys: KeyServer
  readonly clock: FakeClock
  readonly sidecar: FakeSidecar
  readonly token: (by: SigningKey, more?: Record<string, unknown>) => string
  /** Status of the answer to a request with a token. */
  readonly get: (token: string) => Promise<number>
}

async function setScene(handler: KeyHandler, settings: Record<string, unknown> = {}): Promise<Scene> {
  const keys = await startKeyServer(handler)
  const clock = createFakeClock()
  const sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_uri: keys.url, ...settings }],
      upstream: upstream.url,
    },
    clock,
  })
  onTestFinished(async () => {
    await sidecar.stop()
    await keys.stop()
  })
  let serial = 0
  return {
    keys,
    clock,
    sidecar,
    token: (by, more = {}) => signJwt(by, goodClaims(clock.now(), { jti: String((serial += 1)), ...more })),
    get: (token) =>
      new Promise((resolve, reject) => {
        const headers = { authorization: `Bearer ${token}` }
        sendRequest(sidecar.proxy, { agent, headers }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode as number))
        })
          .on('error', reject)
          .end()
      }),
  }
}

/** A token that names a key that nobody has, and that costs nobody a signature. */
function forge(clock: FakeClock): string {
  const header = encode({ alg: 'ES256', kid: randomBytes(12).toString('hex'), typ: 'at+jwt' })
  return `${header}.${encode(goodClaims(clock.now()))}.${randomBytes(64).toString('base64url')}`
}

/** Runs so many jobs, fifty at a time, and counts their results. */
async function repeat<T>(times: number, job: () => Promise<T>): Promise<Map<T, number>> {
  const results = new Map<T, number>()
  let left = times
  const work = async () => {
    while (left > 0) {
      left -= 1
      const result = await job()
      results.set(result, (results.get(result) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: 50 }, work))
  return results
}

describe('a cold start', () => {
  it('fetches the keys once for 500 requests at the same time', async () => {
    const key = createSigningKey('ES256')
    const gate = Promise.withResolvers<void>()
    const { keys, token, get, sidecar } = await setScene((request, response) => {
      void gate.promise.then(() => publishing(key)(request, response))
    })
    const statuses = Promise.all(Array.from({ length: 500 }, () => get(token(key))))
    await vi.waitFor(async () => expect(await sidecar.metrics()).toContain('bearward_requests_in_flight 500\n'), {
      timeout: 10_000,
    })
    gate.resolve()
    expect(new Set(await statuses)).toEqual(new Set([200]))
    expect(keys.requests).toHaveLength(1)
  })
})

describe('a rotation of keys', () => {
  it('under load refuses nothing, neither with keys announced ahead nor with those that come out of the blue', async () => {
    let signing = createSigningKey('ES256', 'generation-0')
    const { keys, clock, sidecar, token, get } = await setScene(publishing(signing))
    await sidecar.ready()
    const statuses = new Map<number, number>()
    let running = true
    const load = Array.from({ length: 10 }, async () => {
      while (running) {
        const status = await get(token(signing))
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      }
    })
    const served = () => statuses.get(200) ?? 0
    for (let generation = 1; generation <= 6; generation += 1) {
      const next = createSigningKey('ES256', `generation-${generation}`)
      if (generation % 2 === 0) {
        // Published first, signed with only after the schedule brought it.
        keys.answer(publishing(next, signing))
        const before = keys.requests.length
        clock.advance(8.5 * MINUTE)
        await vi.waitFor(() => expect(keys.requests.length).toBeGreaterThan(before))
      } else {
        clock.advance(11 * SECOND)
        keys.answer(publishing(next, signing))
      }
      signing = next
      const before = served()
      await vi.waitFor(() => expect(served()).toBeGreaterThan(before + 50), { timeout: 10_000 })
    }
    running = false
    await Promise.all(load)
    expect([...statuses.keys()]).toEqual([200])
  })

  it('while the issuer fails keeps the old key, and takes the new one as soon as it can', async () => {
    const [old, next] = [createSigningKey('ES256', 'old'), createSigningKey('ES256', 'next')]
    const { keys, clock, sidecar, token, get } = await setScene(publishing(old))
    await sidecar.ready()
    keys.answer(answering(500, 'broken'))
    clock.advance(8.5 * MINUTE)
    await vi.waitFor(() => expect(sidecar.logText()).toContain('keys could not be fetched'))
    // Nobody can say yet whether the new key is genuine: not the caller's fault.
    expect(await get(token(next))).toBe(503)
    expect(await get(token(old))).toBe(200)
    keys.answer(publishing(old, next))
    clock.advance(10 * SECOND)
    await vi.waitFor(async () => expect(await get(token(next))).toBe(200))
    expect(await get(token(old))).toBe(200)
  })

  it.each([
    [
      'a key that was removed works no longer than the refresh interval, also for remembered tokens',
      (keys: KeyServer, remaining: SigningKey) => keys.answer(publishing(remaining)),
    ],
    [
      'so does one that was replaced by another of the same kid',
      (keys: KeyServer, remaining: SigningKey) => keys.answer(publishing(remaining, createSigningKey('ES256', 'gone'))),
    ],
  ])('%s', async (_what, change) => {
    const [gone, stays] = [createSigningKey('ES256', 'gone'), createSigningKey('ES256', 'stays')]
    const { keys, clock, sidecar, token, get } = await setScene(publishing(gone, stays), {
      jwks_refresh_interval: '5m',
    })
    await sidecar.ready()
    const exp = Math.floor(clock.now() / 1000) + 86_400
    const [doomed, safe] = [token(gone, { exp }), token(stays, { exp })]
    expect([await get(doomed), await get(safe)]).toEqual([200, 200])
    change(keys, stays)
    clock.advance(5 * MINUTE)
    await vi.waitFor(async () => expect(await get(doomed)).toBe(401))
    expect(await get(token(gone))).toBe(401)
    expect(await get(safe)).toBe(200)
  })
})

describe('a flood of forged kids', () => {
  it('costs the issuer one fetch per cool-down, and no series and no valid request suffers', async () => {
    const key = createSigningKey('ES256')
    const { keys, clock, sidecar, token, get } = await setScene(publishing(key))
    await sidecar.ready()
    const warm = token(key)
    for (let i = 0; i < 2; i += 1) expect(await get(warm)).toBe(200)
    expect(await get(forge(clock))).toBe(401)
    const seriesBefore = seriesOf(await sidecar.metrics())
    const valid = repeat(500, () => get(warm))
    const forged = await repeat(10_000, () => get(forge(clock)))
    // One at start, one for the first forged kid, and the clock stood still since.
    expect(keys.requests).toHaveLength(2)
    expect([...forged]).toEqual([[401, 10_000]])
    expect([...(await valid)]).toEqual([[200, 500]])
    expect(seriesOf(await sidecar.metrics())).toEqual(seriesBefore)

    for (let cooldown = 1; cooldown <= 6; cooldown += 1) {
      clock.advance(10 * SECOND)
      await repeat(100, () => get(forge(clock)))
      expect(keys.requests).toHaveLength(2 + cooldown)
    }
  })

  it('does not keep the schedule from fetching, nor a new key from being found', async () => {
    const [old, next] = [createSigningKey('ES256', 'old'), createSigningKey('ES256', 'next')]
    // Only the schedule asks conditionally, and only to it is there an answer.
    let published = jwksOf(old)
    const { clock, sidecar, token, get } = await setScene((request, response) => {
      const asked = request.headers['if-none-match'] !== undefined || published === jwksOf(old)
      response.writeHead(asked ? 200 : 500, { etag: '"1"' }).end(published)
    })
    await sidecar.ready()
    published = jwksOf(old, next)
    let running = true
    const flood = Array.from({ length: 10 }, async () => {
      while (running) await get(forge(clock))
    })
    for (let passed = 0; passed < 9 * MINUTE; passed += 10 * SECOND) {
      clock.advance(10 * SECOND)
      expect(await get(token(old))).toBe(200)
    }
    await vi.waitFor(async () => expect(await get(token(next))).toBe(200))
    running = false
    await Promise.all(flood)
  })
})

/** Names and labels of all series. */
function seriesOf(metrics: string): string[] {
  return metrics
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.slice(0, line.lastIndexOf(' ')))
}
