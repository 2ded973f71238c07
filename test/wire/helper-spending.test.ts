import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { openRaw } from '../fakes/raw.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import {
  countSpends,
  startSurroundings,
  stopSurroundings,
  toHelperConfig,
  type Surroundings,
} from '../fakes/surroundings.ts'
import { distinct, pause, refreshAt, type TokenAnswer } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar

const CLIENTS = {
  web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } },
  late: {
    client_id: 'web-post',
    client_secret: { env: 'POST_SECRET' },
    client_authentication: 'client_secret_post',
    replay_window: '10s',
  },
  limited: {
    client_id: 'native',
    client_authentication: 'none',
    rate_limit: { per_second: 1, burst: 3 },
  },
}

const start = (timeout: string) =>
  startSidecar({
    config: toHelperConfig(issuer, upstream, { clients: CLIENTS, timeout }),
    env: { WEB_SECRET: issuer.clients.web.secret, POST_SECRET: issuer.clients.webPost.secret },
  })

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  sidecar = await start('30s')
  await sidecar.ready()
})

afterEach(() => {
  issuer.fail('token', undefined)
  issuer.delayTokens(0)
})

afterAll(stopSurroundings)

const refresh = (token: unknown, client?: string, more?: Record<string, string>) =>
  refreshAt(sidecar.helper, token, client, more)
const many = (times: number, run: () => Promise<TokenAnswer>) => Promise.all(Array.from({ length: times }, run))

/** How many requests the token endpoint gets meanwhile. */
const spends = (run: () => Promise<unknown>) => countSpends(issuer, run)

/** Sends a refresh and hangs up once the issuer was asked. */
async function refreshAndLeave(to: FakeSidecar, token: string): Promise<void> {
  const port = Number(new URL(to.helper).port)
  const before = issuer.requests.token
  const { socket } = await openRaw(port)
  const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token, client_id: 'web' }).toString()
  socket.write(
    `POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/x-www-form-urlencoded\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  )
  await expect.poll(() => issuer.requests.token, { timeout: 10_000 }).toBe(before + 1)
  socket.destroy()
}

async function expectAlive(answer: TokenAnswer | undefined, client?: string): Promise<void> {
  expect(answer?.status).toBe(200)
  expect((await refresh(answer?.body['refresh_token'], client)).status).toBe(200)
}

describe('one refresh token, with rotation and reuse detection', () => {
  it('of fifty callers, the first of whom leaves, is spent once, and its family lives', async () => {
    const token = await issuer.signIn()
    issuer.delayTokens(500)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      await refreshAndLeave(sidecar, token)
      answers = await many(49, () => refresh(token))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    await expectAlive(answers[0])
    expect(sidecar.logLines().filter(({ shared }) => shared === 'coalesced').length).toBeGreaterThanOrEqual(49)
  })

  it('of an issuer that answers in 15 s is spent once, whenever callers come', { timeout: 40_000 }, async () => {
    const token = await issuer.signIn()
    issuer.delayTokens(15_000)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      const after = async (ms: number) => {
        await pause(ms)
        return refresh(token)
      }
      answers = await Promise.all([0, 0, 5_000, 14_000].map(after))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    issuer.delayTokens(0)
    await expectAlive(answers[0])
  })

  it('again 2 s later within the window gets the same answer, and the issuer hears nothing of it', async () => {
    const token = await issuer.signIn('web-post')
    const answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers.push(await refresh(token, 'web-post'))
      await pause(2_000)
      answers.push(...(await many(5, () => refresh(token, 'web-post'))))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    await expectAlive(answers[0], 'web-post')
    expect(await sidecar.metrics()).toMatch(/bearward_helper_replayed_total\{client="late"\} [1-5]\n/)
    expect(sidecar.logLines().some(({ shared, client }) => shared === 'replayed' && client === 'late')).toBe(true)
  })

  it('again with another request within the window is for the issuer to decide', async () => {
    const token = await issuer.signIn('web-post')
    const count = await spends(async () => {
      expect((await refresh(token, 'web-post')).status).toBe(200)
      const other = await refresh(token, 'web-post', { scope: 'openid' })
      expect(other.body).toMatchObject({ error: 'invalid_grant', code: 'refused_by_issuer' })
    })
    expect(count).toBe(2)
  })

  it('again 2 s later without a window is for the issuer to decide', async () => {
    const token = await issuer.signIn()
    const count = await spends(async () => {
      expect((await refresh(token)).status).toBe(200)
      await pause(2_000)
      expect((await refresh(token)).body).toMatchObject({ error: 'invalid_grant', code: 'refused_by_issuer' })
    })
    expect(count).toBe(2)
  })

  it('whose answer is lost was sent once, and all are told that it may be spent', async () => {
    const token = await issuer.signIn()
    issuer.fail('token', 'lost')
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await many(10, () => refresh(token))
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toEqual([
      [
        502,
        {
          error: 'temporarily_unavailable',
          error_description: expect.stringContaining('may be spent') as string,
          code: 'outcome_unknown',
        },
      ],
    ])
  })

  it('that is being spent while the configuration is reloaded is spent once', async () => {
    const reloaded = await start('10s')
    await reloaded.ready()
    const token = await issuer.signIn()
    issuer.delayTokens(1_000)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      const before = issuer.requests.token
      const first = refreshAt(reloaded.helper, token)
      await expect.poll(() => issuer.requests.token, { timeout: 10_000 }).toBe(before + 1)
      const { config } = reloaded.app
      const next = { ...config, helper: { ...config.helper, timeout: 20_000 } }
      await reloaded.app.reload({ config: next, locate: () => ({ source: '', path: '', problem: '' }) })
      answers = await Promise.all([first, refreshAt(reloaded.helper, token)])
    })
    expect(count).toBe(1)
    expect(distinct(answers)).toHaveLength(1)
    expect(answers[0]?.status).toBe(200)
    await reloaded.stop()
  })

  it('whose caller left is not given up when the process ends', async () => {
    const ending = await start('10s')
    await ending.ready()
    const token = await issuer.signIn()
    issuer.delayTokens(1_000)
    await refreshAndLeave(ending, token)
    await ending.stop()
    const exchanges = ending.logLines().filter(({ msg }) => msg === 'exchange')
    expect(exchanges).toMatchObject([{ code: 'ok', client: 'web' }])
    expect(ending.logLines().at(-1)).toMatchObject({ msg: 'stopped' })
  })
})

describe('an issuer that fails five times in a row', () => {
  it('is left alone for a moment, and then tried by one request', async () => {
    const patient = await start('1s')
    await patient.ready()
    issuer.fail('token', '500')
    for (let i = 0; i < 5; i += 1) {
      const { body } = await refreshAt(patient.helper, `unknown-${i}`)
      expect(body).toMatchObject({ code: 'issuer_error' })
    }
    const token = await issuer.signIn()
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await many(20, () => refreshAt(patient.helper, token))
    })
    expect(count).toBe(0)
    expect(distinct(answers)).toEqual([
      [
        503,
        {
          error: 'temporarily_unavailable',
          error_description: expect.stringContaining('was not spent') as string,
          code: 'issuer_unavailable',
        },
      ],
    ])
    expect(answers[0]?.headers.get('retry-after')).toBe('1')
    expect(await patient.metrics()).toContain('bearward_helper_breaker_state{issuer="main",state="open"} 1')
    issuer.fail('token', undefined)
    await pause(1_100)
    expect((await refreshAt(patient.helper, token)).status).toBe(200)
    expect(await patient.metrics()).toContain('bearward_helper_breaker_state{issuer="main",state="closed"} 1')
    const said = patient.logLines().filter(({ msg }) => String(msg).startsWith('the issuer'))
    expect(said.map(({ level, issuer: name }) => [level, name])).toEqual([
      ['warn', 'main'],
      ['debug', 'main'],
      ['info', 'main'],
    ])
    await patient.stop()
  })
})

describe('a client with a limit', () => {
  it('gets 429 past it, nothing is spent, and others are served', async () => {
    const token = await issuer.signIn('native')
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await many(10, () => refresh(token, 'native'))
    })
    expect(count).toBe(1)
    const refused = answers.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThanOrEqual(6)
    expect(answers.filter(({ status }) => status === 200).length).toBe(10 - refused.length)
    expect(refused[0]?.body).toEqual({
      error: 'temporarily_unavailable',
      error_description: expect.stringContaining('was not spent') as string,
      code: 'rate_limited',
    })
    expect(Number(refused[0]?.headers.get('retry-after'))).toBe(1)
    expect((await refresh(await issuer.signIn())).status).toBe(200)
    expect(await sidecar.metrics()).toMatch(/exchanges_total\{client="limited",grant="\w+",code="rate_limited"\} \d/)
  })
})
