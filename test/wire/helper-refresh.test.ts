import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { expectToOpen, expectUnstored } from '../fakes/handed-out.ts'
import { openRaw } from '../fakes/raw.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import {
  countSpends,
  startSurroundings,
  stopSurroundings,
  toHelperConfig,
  type Surroundings,
} from '../fakes/surroundings.ts'
import { readAnswer, type TokenAnswer } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar

const CLIENTS = {
  web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } },
  post: { client_id: 'web-post', client_secret: { env: 'POST_SECRET' }, client_authentication: 'client_secret_post' },
  native: { client_id: 'native', client_authentication: 'none' },
  wrong: { client_id: 'wrong', client_secret: { env: 'WEB_SECRET' } },
}

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  process.env['WEB_SECRET'] = issuer.clients.web.secret
  process.env['POST_SECRET'] = issuer.clients.webPost.secret
  sidecar = await start()
  await sidecar.ready()
})

const start = () =>
  startSidecar({
    config: toHelperConfig(issuer, upstream, { clients: CLIENTS, timeout: '1s' }),
  })

afterEach(() => {
  for (const endpoint of ['token', 'jwks', 'discovery'] as const) issuer.fail(endpoint, undefined)
  issuer.tamper(undefined)
  issuer.delayTokens(0)
})

afterAll(stopSurroundings)

async function post(body: URLSearchParams | string, init: RequestInit = {}): Promise<TokenAnswer> {
  const response = await fetch(`${sidecar.helper}/oauth2/token`, { method: 'POST', body, ...init })
  expect(response.headers.get('content-type')).toBe('application/json')
  return expectUnstored(await readAnswer(response))
}

const form = (parameters: Record<string, string>) => new URLSearchParams(parameters)
const refresh = (token: string, client = 'web') =>
  post(form({ grant_type: 'refresh_token', refresh_token: token, client_id: client }))

/** How many requests the token endpoint gets meanwhile. */
const spends = (run: () => Promise<unknown>) => countSpends(issuer, run)

describe('a refresh token', () => {
  it('is spent with the secret that the caller does not have, and what comes back works', async () => {
    const { status, body } = await refresh(await issuer.signIn())
    expect(status).toBe(200)
    expect(body).toMatchObject({ expires_in: 600, scope: expect.any(String) as string })
    expect(String(body['token_type']).toLowerCase()).toBe('bearer')
    expect(body['id_token']).toMatch(/^eyJ/)
    await expectToOpen(sidecar, body['access_token'])
    expect(sidecar.lastExchange()).toMatchObject({ client: 'web', grant: 'refresh_token', code: 'ok', status: 200 })
  })

  it.each(['web-post', 'native'])('of a client with other authentication (%s) works', async (client) => {
    expect((await refresh(await issuer.signIn(client), client)).status).toBe(200)
  })

  it('comes in JSON as well', async () => {
    const text = JSON.stringify({ grant_type: 'refresh_token', refresh_token: await issuer.signIn(), client_id: 'web' })
    expect((await post(text, { headers: { 'content-type': 'application/json; charset=utf-8' } })).status).toBe(200)
  })

  it('that fifty callers spend at once is spent once, and its family lives', async () => {
    const token = await issuer.signIn()
    issuer.delayTokens(200)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all(Array.from({ length: 50 }, () => refresh(token)))
    })
    expect(count).toBe(1)
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1)
    expect(answers[0]?.status).toBe(200)
    const next = answers[0]?.body['refresh_token'] as string
    expect(next).not.toBe(token)
    expect((await refresh(next)).status).toBe(200)
    expect(await sidecar.metrics()).toMatch(/bearward_helper_coalesced_total\{client="web"\} 49/)
  })

  it('is spent even when its caller leaves, and whoever comes next gets the answer', async () => {
    const token = await issuer.signIn()
    issuer.delayTokens(300)
    const port = Number(new URL(sidecar.helper).port)
    const count = await spends(async () => {
      const { socket } = await openRaw(port)
      const body = form({ grant_type: 'refresh_token', refresh_token: token, client_id: 'web' }).toString()
      const before = issuer.requests.token
      socket.write(
        `POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/x-www-form-urlencoded\r\n` +
          `Content-Length: ${body.length}\r\n\r\n${body}`,
      )
      await expect.poll(() => issuer.requests.token, { timeout: 10_000 }).toBe(before + 1)
      socket.destroy()
      const { status, body: tokens } = await refresh(token)
      expect(status).toBe(200)
      expect((await refresh(tokens['refresh_token'] as string)).status).toBe(200)
    })
    expect(count).toBe(2)
  })

  it('that was spent before is refused by the issuer, whose answer passes through', async () => {
    const token = await issuer.signIn()
    await refresh(token)
    const { status, body } = await refresh(token)
    expect(status).toBe(400)
    expect(body).toMatchObject({ error: 'invalid_grant', code: 'refused_by_issuer' })
    expect(body['error_description']).toEqual(expect.any(String))
    expect(sidecar.lastExchange()).toMatchObject({ code: 'refused_by_issuer', status: 400 })
  })
})

describe('nothing is handed out', () => {
  const resigned = (claims: Record<string, unknown>) => (body: Record<string, unknown>) => ({
    ...body,
    id_token: issuer.signAccessToken({ aud: 'web', scope: undefined, client_id: undefined, ...claims }, { typ: 'JWT' }),
  })
  it.each<[string, () => (body: Record<string, unknown>) => Record<string, unknown>]>([
    [
      'an ID token with a broken signature',
      () => (body) => ({ ...body, id_token: `${(body['id_token'] as string).slice(0, -8)}AAAAAAAA` }),
    ],
    ['an ID token for another client', () => resigned({ aud: 'other' })],
    ['an ID token of another issuer', () => resigned({ iss: 'https://other.example' })],
    ['an ID token that expired', () => resigned({ exp: Math.floor(Date.now() / 1000) - 60 })],
    ['an ID token without subject', () => resigned({ sub: undefined })],
    ['an ID token with another azp', () => resigned({ azp: 'other' })],
    [
      'an access token for this API with a broken signature',
      () => (body) => ({ ...body, access_token: `${(body['access_token'] as string).slice(0, -8)}AAAAAAAA` }),
    ],
    [
      'no access token',
      () =>
        ({ access_token: _access, ...body }) =>
          body,
    ],
    ['another token type', () => (body) => ({ ...body, token_type: 'mac' })],
  ])('of an answer with %s', async (_what, change) => {
    issuer.tamper(change())
    const { status, body } = await refresh(await issuer.signIn())
    expect(status).toBe(502)
    expect(body).toMatchObject({ error: 'server_error', code: 'token_validation_failed' })
    expect(JSON.stringify(body)).not.toMatch(/access_token|eyJ/)
    expect(sidecar.lastExchange()).toMatchObject({ code: 'token_validation_failed', status: 502 })
  })
})

describe('a provider in trouble', () => {
  it.each<['500' | 'hang' | 'reset' | 'html', number, string, string]>([
    ['500', 502, 'temporarily_unavailable', 'issuer_error'],
    ['hang', 504, 'temporarily_unavailable', 'issuer_timeout'],
    ['reset', 502, 'temporarily_unavailable', 'outcome_unknown'],
    ['html', 502, 'server_error', 'token_validation_failed'],
  ])('%s: %i %s (%s), and the grant is not tried again', async (mode, status, error, code) => {
    const token = await issuer.signIn()
    issuer.fail('token', mode)
    let answer: TokenAnswer | undefined
    expect(await spends(async () => (answer = await refresh(token)))).toBe(1)
    expect(answer?.status).toBe(status)
    expect(answer?.body).toMatchObject({ error, code })
  })

  it('that is gone: 502, and the token is good afterwards', async () => {
    const token = await issuer.signIn()
    await issuer.stop()
    const { status, body } = await refresh(token)
    await issuer.restart()
    expect(status).toBe(502)
    expect(body).toMatchObject({ error: 'temporarily_unavailable', code: 'issuer_unreachable' })
    expect((await refresh(token)).status).toBe(200)
  })

  it('that refuses our credentials: the caller is not blamed', async () => {
    const { status, body } = await refresh(await issuer.signIn(), 'wrong')
    expect(status).toBe(502)
    expect(body).toMatchObject({ error: 'server_error', code: 'client_refused_by_issuer' })
  })

  it('whose keys never came: 503 without a spend', async () => {
    issuer.fail('jwks', '500')
    const cold = await start()
    const count = await spends(async () => {
      const response = await fetch(`${cold.helper}/oauth2/token`, {
        method: 'POST',
        body: form({ grant_type: 'refresh_token', refresh_token: 'x', client_id: 'web' }),
      })
      expect(response.status).toBe(503)
      expect(response.headers.get('retry-after')).toBe('5')
      expect(await response.json()).toMatchObject({ code: 'keys_unavailable' })
    })
    expect(count).toBe(0)
    await cold.stop()
  })
})

describe('a request is refused without asking the provider', () => {
  const good = { grant_type: 'refresh_token', refresh_token: 'x', client_id: 'web' }
  const json = { headers: { 'content-type': 'application/json' } }
  it.each<[string, number, string, () => Promise<TokenAnswer>]>([
    ['another content type', 400, 'invalid_request', () => post('a=b', { headers: { 'content-type': 'text/plain' } })],
    [
      'JSON under the name of a form',
      400,
      'invalid_request',
      () =>
        post('{"grant_type":"refresh_token"}', { headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
    ],
    ['broken JSON', 400, 'invalid_request', () => post('{', json)],
    ['JSON that is a list', 400, 'invalid_request', () => post('[]', json)],
    ['a number for a text', 400, 'invalid_request', () => post('{"grant_type":5}', json)],
    [
      'a parameter twice',
      400,
      'invalid_request',
      () => post(new URLSearchParams([...Object.entries(good), ['client_id', 'native']])),
    ],
    ['a huge body', 413, 'invalid_request', () => post(form({ ...good, scope: 'x'.repeat(70_000) }))],
    ['no grant type', 400, 'invalid_request', () => post(form({ client_id: 'web' }))],
    ['no refresh token', 400, 'invalid_request', () => post(form({ ...good, refresh_token: '' }))],
    [
      'no client, where there are several',
      400,
      'invalid_request',
      () => post(form({ grant_type: 'refresh_token', refresh_token: 'x' })),
    ],
    ['an unknown client', 400, 'invalid_client', () => post(form({ ...good, client_id: 'nobody' }))],
    ['a client secret', 400, 'invalid_request', () => post(form({ ...good, client_secret: 'x' }))],
    [
      'a password',
      400,
      'unsupported_grant_type',
      () => post(form({ grant_type: 'password', username: 'a', password: 'b', client_id: 'web' })),
    ],
    ['an invented grant', 400, 'unsupported_grant_type', () => post(form({ ...good, grant_type: 'urn:x' }))],
    [
      'a page of a browser',
      403,
      'access_denied',
      () => post(form(good), { headers: { origin: 'https://evil.example' } }),
    ],
  ])('%s: %i %s', async (_what, status, error, send) => {
    let answer: TokenAnswer | undefined
    expect(await spends(async () => (answer = await send()))).toBe(0)
    expect(answer?.status).toBe(status)
    expect(answer?.body['error']).toBe(error)
  })

  it.each([
    ['GET', '/oauth2/token', 405],
    ['POST', '/oauth2/token?grant_type=refresh_token', 400],
    ['POST', '/other', 404],
  ])('%s %s: %i', async (method, path, status) => {
    const response = await fetch(sidecar.helper + path, { method, ...(method === 'POST' && { body: form(good) }) })
    expect(response.status).toBe(status)
    expect(response.headers.get('cache-control')).toBe('no-store')
  })

  it.each(['evil.example', 'localhost.evil.example:8181', '169.254.169.254'])(
    'for the host %s, which is not this machine: a page may have pointed its own name here',
    async (host) => {
      const port = Number(new URL(sidecar.helper).port)
      const { socket, received } = await openRaw(port)
      socket.write(
        `POST /oauth2/token HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`,
      )
      await expect.poll(received, { timeout: 5000 }).toMatch(/^HTTP\/1\.1 403 /)
      socket.destroy()
      expect(sidecar.lastExchange()).toMatchObject({ code: 'origin_refused' })
    },
  )
})

describe('the helper', () => {
  it('is not there unless a client is configured', async () => {
    const without = await startSidecar({
      config: { issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }], upstream: upstream.url },
    })
    expect(without.app.ports.helper).toBeUndefined()
    await without.stop()
  })

  it('counts exchanges, and writes no secret or token anywhere', async () => {
    const token = await issuer.signIn()
    const { body } = await refresh(token)
    const text = sidecar.logText() + (await sidecar.metrics())
    expect(text).toMatch(/bearward_helper_exchanges_total\{client="web",grant="refresh_token",code="ok"\} \d+/)
    for (const secret of [
      token,
      body['access_token'],
      body['refresh_token'],
      body['id_token'],
      issuer.clients.web.secret,
    ]) {
      expect(text).not.toContain(secret)
    }
  })
})
