import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { loadConfigWithPlaces } from '../../src/config/load.ts'
import { startServing, type Serving } from '../deploy/serving.ts'
import { isRedisInstalled, startRedis, stopRedis, type FakeRedis } from '../fakes/redis.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { countSpends, startSurroundings, toHelperConfig, type Surroundings } from '../fakes/surroundings.ts'
import { distinct, pause, refreshAt, type TokenAnswer } from '../fakes/token-request.ts'

const test = isRedisInstalled() ? it : it.skip
const PASSWORD = 'canary-redis-password-52e8'
const CANNOT = /^the store cannot be used/
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
const processes: Serving[] = []

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
})

afterEach(async () => {
  issuer.fail('token', undefined)
  issuer.delayTokens(0)
  await Promise.all([
    stopSidecars(),
    ...processes.splice(0).map(async ({ command }) => {
      command.child.kill('SIGTERM')
      await command.ended
    }),
  ])
  await stopRedis()
})

afterAll(async () => {
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

interface Setting {
  readonly onFailure?: 'local' | 'refuse'
  readonly more?: Readonly<Record<string, unknown>>
}

const toConfig = (redis: FakeRedis, { onFailure = 'local', more = {} }: Setting = {}) =>
  toHelperConfig(issuer, upstream, {
    timeout: '20s',
    clients: {
      web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } },
      late: {
        client_id: 'web-post',
        client_secret: { env: 'POST_SECRET' },
        client_authentication: 'client_secret_post',
        replay_window: '10s',
      },
    },
    store: {
      redis: {
        url: `redis://127.0.0.1:${redis.port}`,
        password: { env: 'REDIS_PASSWORD' },
        command_timeout: '500ms',
      },
      on_failure: onFailure,
    },
    ...more,
  })

const toEnvironment = () => ({
  WEB_SECRET: issuer.clients.web.secret,
  POST_SECRET: issuer.clients.webPost.secret,
  REDIS_PASSWORD: PASSWORD,
})

const startRedisWithPassword = () => startRedis(['requirepass', PASSWORD])

/** Sidecars with one Redis. */
async function startReplicas(redis: FakeRedis, setting?: Setting): Promise<[FakeSidecar, FakeSidecar]> {
  const start = async () => {
    const sidecar = await startSidecar({ config: toConfig(redis, setting), env: toEnvironment() })
    await sidecar.ready()
    await expect.poll(() => storeLines(sidecar).length, { timeout: 10_000 }).toBeGreaterThan(0)
    return sidecar
  }
  return [await start(), await start()]
}

/** The same as processes of their own. */
async function startProcesses(redis: FakeRedis, setting?: Setting): Promise<[Serving, Serving]> {
  const file = join(folder, 'replica.yaml')
  const listen = { proxy: '127.0.0.1:0', ops: '127.0.0.1:0', helper: '127.0.0.1:0' }
  writeFileSync(file, stringify({ ...toConfig(redis, setting), listen, drain: { delay: '0s', timeout: '1s' } }))
  const start = async () => {
    const serving = await startServing(['--config', file], toEnvironment())
    processes.push(serving)
    await Promise.all([serving.ready(), serving.said('the store can be used')])
    return serving
  }
  return [await start(), await start()]
}

const storeLines = (sidecar: FakeSidecar) => sidecar.logLines().filter(({ msg }) => String(msg).startsWith('the store'))
const many = (times: number, run: () => Promise<TokenAnswer>) => Array.from({ length: times }, run)

/** How many requests the token endpoint gets meanwhile. */
const spends = (run: () => Promise<unknown>) => countSpends(issuer, run)

/** Waits until the issuer got one request more than it had. */
const asked = (before: number) => expect.poll(() => issuer.requests.token, { timeout: 10_000 }).toBe(before + 1)

/** A refresh at one replica and, once that has asked the issuer, the same at another: the answers are still to come. */
async function refreshAtBoth(first: { helper: string }, second: { helper: string }, token: string) {
  const before = issuer.requests.token
  const here = refreshAt(first.helper, token)
  await asked(before)
  return [here, refreshAt(second.helper, token)] as const
}

async function expectAlive(helper: string, answer: TokenAnswer | undefined, client?: string): Promise<void> {
  expect(answer?.status).toBe(200)
  expect((await refreshAt(helper, answer?.body['refresh_token'], client)).status).toBe(200)
}

describe('two replicas with one Redis', () => {
  test('make one request of fifty, all get its answer, and the family lives', async () => {
    const [a, b] = await startReplicas(await startRedisWithPassword())
    const token = await issuer.signIn()
    issuer.delayTokens(500)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all([a, b].flatMap(({ helper }) => many(25, () => refreshAt(helper, token))))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    await expectAlive(b.helper, answers[0])
    const coalesced = await Promise.all(
      [a, b].map(async (one) => Number(/coalesced_total\{client="web"\} (\d+)/.exec(await one.metrics())?.[1])),
    )
    expect(coalesced.toSorted()).toEqual([24, 25])
    expect(await a.metrics()).toContain('bearward_store_state{state="ready"} 1')
    const status: unknown = await (await fetch(`${a.ops}/status`)).json()
    expect(status).toMatchObject({ store: { kind: 'redis', state: 'ready' } })
  })

  test('that are processes of their own do so, too', { timeout: 60_000 }, async () => {
    const [a, b] = await startProcesses(await startRedisWithPassword())
    const token = await issuer.signIn()
    issuer.delayTokens(500)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all([a, b].flatMap(({ helper }) => many(25, () => refreshAt(helper, token))))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    await expectAlive(a.helper, answers[0])
    expect(a.command.stdout() + b.command.stdout()).not.toContain(PASSWORD)
  })

  test(
    'of which the one that spends is killed: the other soon says that it is not known, and does not spend for long',
    { timeout: 90_000 },
    async () => {
      const redis = await startRedisWithPassword()
      const [a, b] = await startProcesses(redis, { more: { timeout: '20s', validation_wait: '0s' } })
      const token = await issuer.signIn()
      issuer.delayTokens(8_000)
      const count = await spends(async () => {
        const before = issuer.requests.token
        const lost = refreshAt(a.helper, token).catch(() => undefined)
        await asked(before)
        const elsewhere = refreshAt(b.helper, token)
        await pause(2_500)
        a.command.child.kill('SIGKILL')
        expect(await lost).toBeUndefined()
        const unknown = {
          status: 502,
          body: { error: 'temporarily_unavailable', code: 'outcome_unknown' },
        }
        expect(await elsewhere).toMatchObject(unknown)
        expect(await b.said('exchange')).toMatchObject({ detail: { reason: 'owner_silent' } })
        // What the lease says, that the token may be spent, has its whole time: 55 s with these settings.
        const left = Number(/bearward:l\.[^]*?\r\n:(\d+)\r/.exec(await redis.dump())?.[1])
        expect(left).toBeGreaterThan(25_000)
        expect(await refreshAt(b.helper, token)).toMatchObject(unknown)
      })
      expect(count).toBe(1)
    },
  )

  test(
    'of which the one that spends stands still: while that is short, all get its answer; then nobody spends either',
    { timeout: 90_000 },
    async () => {
      const [a, b] = await startProcesses(await startRedisWithPassword())
      const frozenFor = async (ms: number) => {
        const token = await issuer.signIn()
        const before = issuer.requests.token
        const here = refreshAt(a.helper, token)
        await asked(before)
        await pause(1_500)
        const elsewhere = refreshAt(b.helper, token)
        await pause(500)
        a.command.child.kill('SIGSTOP')
        await pause(ms)
        a.command.child.kill('SIGCONT')
        return Promise.all([here, elsewhere])
      }
      issuer.delayTokens(4_000)
      let short: TokenAnswer[] = []
      let long: TokenAnswer[] = []
      const count = await spends(async () => {
        short = await frozenFor(3_000)
        long = await frozenFor(11_000)
      })
      expect(count).toBe(2)
      expect(distinct(short)).toHaveLength(1)
      expect(short[0]?.status).toBe(200)
      expect(long[0]?.status).toBe(200)
      expect(long[1]).toMatchObject({ status: 502, body: { code: 'outcome_unknown' } })
      issuer.delayTokens(0)
      await expectAlive(b.helper, long[0])
    },
  )

  test('get one refusal of the issuer for all who asked', async () => {
    const [a, b] = await startReplicas(await startRedisWithPassword())
    issuer.delayTokens(300)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all([a, b].flatMap(({ helper }) => many(5, () => refreshAt(helper, 'never-was-one'))))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    expect(answers[0]).toMatchObject({ status: 400, body: { error: 'invalid_grant', code: 'refused_by_issuer' } })
  })

  test('get one unknown outcome when the answer of the issuer is lost', async () => {
    const [a, b] = await startReplicas(await startRedisWithPassword())
    issuer.delayTokens(300)
    issuer.fail('token', 'lost')
    const token = await issuer.signIn()
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all([a, b].flatMap(({ helper }) => many(5, () => refreshAt(helper, token))))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    expect(answers[0]).toMatchObject({ status: 502, body: { code: 'outcome_unknown' } })
  })

  test('give the answer of one again at the other, within the window alone', async () => {
    const [a, b] = await startReplicas(await startRedisWithPassword())
    const token = await issuer.signIn('web-post')
    const count = await spends(async () => {
      const first = await refreshAt(a.helper, token, 'web-post')
      await pause(2_000)
      const second = await refreshAt(b.helper, token, 'web-post')
      expect(distinct([first, second])).toHaveLength(1)
      await expectAlive(b.helper, second, 'web-post')
    })
    expect(count).toBe(2)
    expect(await b.metrics()).toContain('bearward_helper_replayed_total{client="late"} 1')
    const other = await issuer.signIn()
    expect((await refreshAt(a.helper, other)).status).toBe(200)
    await pause(500)
    expect((await refreshAt(b.helper, other)).body).toMatchObject({ code: 'refused_by_issuer' })
  })

  test('leave nothing in Redis by which a token could be found', async () => {
    const redis = await startRedisWithPassword()
    const [a] = await startReplicas(redis)
    const token = await issuer.signIn('web-post')
    const { body } = await refreshAt(a.helper, token, 'web-post')
    const dump = await redis.dump()
    expect(dump).toMatch(/bearward:l\.[\w-]{43} /)
    expect(dump).toMatch(/bearward:a\.[\w-]{43} /)
    // The beginning of every token of this issuer; three letters of it may stand in two thousand others by chance.
    const begin = String(body['id_token']).slice(0, 12)
    const words = [token, body['access_token'], body['refresh_token'], body['id_token'], 'web-post', 'user-1', begin]
    const decoded = dump.split(/\s+/).map((word) => Buffer.from(word, 'base64url').toString('latin1'))
    for (const word of words) {
      expect(word).toEqual(expect.any(String))
      expect(dump).not.toContain(word)
      expect(decoded.join('\n')).not.toContain(word)
    }
    for (const ttl of dump.matchAll(/^:(-?\d+)\r$/gm)) {
      expect(Number(ttl[1])).toBeGreaterThan(0)
      expect(Number(ttl[1])).toBeLessThanOrEqual(10_000)
    }
  })

  test('seal what the other can open, and Redis sees neither form', async () => {
    const file = join(folder, 'sealing.key')
    writeFileSync(file, randomBytes(32).toString('base64'))
    const redis = await startRedisWithPassword()
    const [a, b] = await startReplicas(redis, { more: { sealing: { key_files: [file], accept_unsealed: true } } })
    const first = await refreshAt(a.helper, await issuer.signIn())
    issuer.delayTokens(300)
    const sealed = first.body['refresh_token']
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all([a, b].map(({ helper }) => refreshAt(helper, sealed)))
    })
    expect(count).toBe(1)
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(answers[0]?.body['access_token']).toBe(answers[1]?.body['access_token'])
    // Each seals by itself, and either is good.
    expect(answers[0]?.body['refresh_token']).not.toBe(answers[1]?.body['refresh_token'])
    expect(await redis.dump()).not.toContain(String(sealed).slice(0, 20))
    issuer.delayTokens(0)
    await expectAlive(a.helper, answers[1])
  })
})

test('a store is taken into use and out of it by a reload, also in the middle of a spend', async () => {
  const redis = await startRedisWithPassword()
  const config = toConfig(redis)
  const { store: _store, ...alone } = config.helper
  const sidecar = await startSidecar({ config: { ...config, helper: alone }, env: toEnvironment() })
  await sidecar.ready()
  const reload = async (helper: object) => {
    const file = join(folder, 'reload.yaml')
    const listen = { proxy: '127.0.0.1:0', ops: '127.0.0.1:0', helper: '127.0.0.1:0' }
    const drain = { delay: '0s', timeout: '5s' }
    writeFileSync(file, stringify({ telemetry: { log_level: 'trace' }, ...config, helper, listen, drain }))
    await sidecar.app.reload(loadConfigWithPlaces({ file, env: {} }))
  }
  expect(await sidecar.metrics()).not.toContain('bearward_store_state{')
  const token = await issuer.signIn()
  issuer.delayTokens(1_000)
  let answers: TokenAnswer[] = []
  const count = await spends(async () => {
    const before = issuer.requests.token
    const first = refreshAt(sidecar.helper, token)
    await asked(before)
    await reload(config.helper)
    answers = await Promise.all([first, refreshAt(sidecar.helper, token)])
  })
  expect(count).toBe(1)
  expect(distinct(answers)).toHaveLength(1)
  issuer.delayTokens(0)
  await expect.poll(() => storeLines(sidecar).length, { timeout: 10_000 }).toBe(1)
  await expectAlive(sidecar.helper, answers[0])
  expect(await redis.dump()).toContain('bearward:a.')
  expect(await sidecar.metrics()).toContain('bearward_store_state{state="ready"} 1')
  await reload(alone)
  expect(await sidecar.metrics()).not.toContain('bearward_store_state{')
  await redis.kill()
  expect((await refreshAt(sidecar.helper, await issuer.signIn())).status).toBe(200)
  expect(await sidecar.metrics()).not.toContain('bearward_helper_unshared_total{')
})

test('a replica that ends leaves the answers of its last spends', async () => {
  const [a, b] = await startReplicas(await startRedisWithPassword(), { onFailure: 'refuse' })
  const token = await issuer.signIn()
  issuer.delayTokens(1_000)
  let answers: TokenAnswer[] = []
  const count = await spends(async () => {
    const [here, elsewhere] = await refreshAtBoth(a, b, token)
    await pause(200)
    const ended = a.stop()
    answers = await Promise.all([here, elsewhere])
    await ended
  })
  expect(count).toBe(1)
  expect(distinct(answers)).toHaveLength(1)
  issuer.delayTokens(0)
  await expectAlive(b.helper, answers[1])
})

describe('a Redis that stops', () => {
  test.each(['freeze', 'kill'] as const)(
    '(%s) with on_failure: local: spends go on, and the log says so once',
    async (how) => {
      const redis = await startRedisWithPassword()
      const [a] = await startReplicas(redis)
      if (how === 'freeze') redis.freeze()
      else await redis.kill()
      for (let i = 0; i < 3; i += 1) expect((await refreshAt(a.helper, await issuer.signIn())).status).toBe(200)
      expect(await a.metrics()).toContain('bearward_helper_unshared_total{client="web"} 3')
      expect(await a.metrics()).toContain('bearward_store_state{state="unavailable"} 1')
      if (how === 'freeze') redis.thaw()
      else await redis.restart()
      await expect.poll(() => storeLines(a).length, { timeout: 15_000 }).toBe(3)
      expect(storeLines(a)).toMatchObject([
        { level: 'info', msg: 'the store can be used' },
        {
          level: 'warn',
          msg: 'the store cannot be used; until it can, grants are spent without it, and another replica may spend the same ones, too',
          reason: how === 'freeze' ? 'timeout' : expect.stringMatching(/^\w+$/),
        },
        { level: 'info', msg: 'the store can be used' },
      ])
      expect((await refreshAt(a.helper, await issuer.signIn())).status).toBe(200)
      expect(await a.metrics()).toContain('bearward_helper_unshared_total{client="web"} 3')
    },
  )

  test.each(['freeze', 'kill'] as const)(
    '(%s) with on_failure: refuse: nothing is spent, and it works afterwards',
    async (how) => {
      const redis = await startRedisWithPassword()
      const [a, b] = await startReplicas(redis, { onFailure: 'refuse' })
      const token = await issuer.signIn()
      if (how === 'freeze') redis.freeze()
      else await redis.kill()
      const count = await spends(async () => {
        const answers = await Promise.all(many(5, () => refreshAt(a.helper, token)))
        expect(distinct(answers)).toEqual([
          [
            503,
            {
              error: 'temporarily_unavailable',
              error_description: expect.stringContaining('was not spent') as string,
              code: 'store_unavailable',
            },
          ],
        ])
        expect(answers[0]?.headers.get('retry-after')).toBe('1')
      })
      expect(count).toBe(0)
      if (how === 'freeze') redis.thaw()
      else await redis.restart()
      await expect.poll(() => storeLines(a).at(-1)?.['msg'], { timeout: 15_000 }).toBe('the store can be used')
      expect(storeLines(a)[1]?.['msg']).toMatch(CANNOT)
      // The attempt that was given up may be in the store for a moment: it is taken back.
      await expect
        .poll(async () => (await refreshAt(b.helper, token)).status, { timeout: 10_000, interval: 500 })
        .toBe(200)
    },
  )

  test('(frozen) in the middle of a spend: its callers get the answer, and those elsewhere do when it goes on', async () => {
    const redis = await startRedisWithPassword()
    const [a, b] = await startReplicas(redis, { onFailure: 'refuse' })
    const token = await issuer.signIn()
    issuer.delayTokens(1_500)
    const count = await spends(async () => {
      const [here, elsewhere] = await refreshAtBoth(a, b, token)
      await pause(500)
      redis.freeze()
      const first = await here
      expect(first.status).toBe(200)
      await pause(1_000)
      redis.thaw()
      expect(distinct([first, await elsewhere])).toHaveLength(1)
      issuer.delayTokens(0)
      await expect.poll(() => storeLines(a).at(-1)?.['msg'], { timeout: 15_000 }).toBe('the store can be used')
      await expectAlive(a.helper, first)
    })
    expect(count).toBe(2)
  })

  test(
    '(frozen) in the middle of a spend for longer than an owner may be silent: nobody takes it for dead',
    { timeout: 60_000 },
    async () => {
      const redis = await startRedisWithPassword()
      const [a, b] = await startReplicas(redis, { onFailure: 'refuse' })
      const token = await issuer.signIn()
      issuer.delayTokens(17_000)
      let answers: TokenAnswer[] = []
      const count = await spends(async () => {
        const [here, elsewhere] = await refreshAtBoth(a, b, token)
        await pause(1_500)
        redis.freeze()
        await pause(10_000)
        redis.thaw()
        answers = await Promise.all([here, elsewhere])
      })
      expect(count).toBe(1)
      expect(distinct(answers)).toHaveLength(1)
      issuer.delayTokens(0)
      await expectAlive(b.helper, answers[0])
    },
  )

  test('(killed, and started empty) in the middle of a spend: nobody spends again, and all get the answer', async () => {
    const redis = await startRedisWithPassword()
    const [a, b] = await startReplicas(redis, { onFailure: 'refuse' })
    const token = await issuer.signIn()
    issuer.delayTokens(6_000)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      const [here, elsewhere] = await refreshAtBoth(a, b, token)
      await pause(500)
      await redis.kill()
      await pause(500)
      await redis.restart()
      await expect.poll(() => storeLines(a).at(-1)?.['msg'], { timeout: 15_000 }).toBe('the store can be used')
      // The lease is set again within a second.
      await pause(1_500)
      const late = refreshAt(b.helper, token)
      answers = await Promise.all([here, elsewhere, late])
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    issuer.delayTokens(0)
    await expectAlive(b.helper, answers[0])
  })

  test('and never was there: the sidecar starts, says so, and does as it is told', async () => {
    const redis = await startRedisWithPassword()
    await redis.kill()
    const start = (onFailure: 'local' | 'refuse') =>
      startSidecar({ config: toConfig(redis, { onFailure }), env: toEnvironment() })
    const [local, strict] = [await start('local'), await start('refuse')]
    await Promise.all([local.ready(), strict.ready()])
    expect((await refreshAt(local.helper, await issuer.signIn())).status).toBe(200)
    expect((await refreshAt(strict.helper, await issuer.signIn())).body).toMatchObject({ code: 'store_unavailable' })
    expect(storeLines(strict)).toMatchObject([
      {
        level: 'warn',
        msg: 'the store cannot be used; until it can, grants are refused unspent',
        reason: 'ECONNREFUSED',
      },
    ])
    expect(local.logText() + strict.logText()).not.toContain(PASSWORD)
  })
})
