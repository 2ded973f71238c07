import { createHash, randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WORKOS_DEVICE_PARAMETERS } from '../fakes/documented-requests.ts'
import { ALL_TOKENS, expectAllTokens } from '../fakes/handed-out.ts'
import { startHelperExample } from '../fakes/helper-example.ts'
import { DEVICE_CODE } from '../fakes/provider.ts'
import { stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { postForm, type TokenAnswer } from '../fakes/token-request.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'
import { startWorkos, type Workos } from '../fakes/workos.ts'

const CALLBACK = 'https://app.example.com/callback'
const NATIVE_CALLBACK = 'com.example.app://callback'
const RESOURCE = 'https://api.example.com'

let workos: Workos
let upstream: FakeUpstream
let sidecar: FakeSidecar

beforeAll(async () => {
  workos = await startWorkos()
  upstream = await startUpstream()
  sidecar = await startHelperExample({
    name: 'workos-helper',
    issuer: workos.issuer,
    audience: [RESOURCE, workos.environmentId],
    upstream: upstream.url,
    clients: workos,
  })
})
afterEach(() => {
  workos.configure()
  workos.server.delay(0)
})
afterAll(async () => {
  await stopSidecars()
  await workos.server.stop()
  await upstream.stop()
})

type Answer = Pick<TokenAnswer, 'status' | 'body'>

const post = (parameters: Record<string, string>, path = '/oauth2/token', to = sidecar.helper) =>
  postForm(to + path, parameters)

const signIn = (clientId: string, redirectUri: string, more: Readonly<Record<string, string>> = {}) =>
  workos.issueCode({ client_id: clientId, redirect_uri: redirectUri, ...more })

const FULL = { ...ALL_TOKENS, expires_in: 3_600 }
const expectGood = (answer: Answer) => expectAllTokens(sidecar, answer, FULL)

const outcome = ({ status, body }: Answer) => [status, body['error']]

describe('document 004, the device code grant', () => {
  const start = async (scope = 'openid offline_access', more: Record<string, string> = {}) => {
    const parameters = { client_id: workos.native.clientId, scope, ...more }
    const { status, body } = await post(parameters, '/oauth2/device_authorization')
    expect(status).toBe(200)
    return { deviceCode: body['device_code'] as string, userCode: body['user_code'] as string, body }
  }
  /** What the document lists, and nothing else; `client_secret?` is left out, since the application is public. */
  const parameters = (deviceCode: string): Record<string, string> => {
    const values: Record<string, string> = {
      grant_type: DEVICE_CODE,
      device_code: deviceCode,
      client_id: workos.native.clientId,
    }
    return Object.fromEntries(
      WORKOS_DEVICE_PARAMETERS.filter((name) => !name.endsWith('?')).map((name) => [name, values[name] as string]),
    )
  }

  it('is what the AuthKit domain takes', async () => {
    const { deviceCode, userCode } = await start()
    workos.approve(userCode)
    expect((await post(parameters(deviceCode), '/oauth2/token', workos.issuer)).body).toMatchObject(FULL)
  })

  it('works through the helper, request for request, polled repeatedly', { timeout: 40_000 }, async () => {
    const { deviceCode, userCode, body } = await start('openid offline_access', { resource: RESOURCE })
    expect(body).toMatchObject({ expires_in: 300, interval: 5, verification_uri: `${workos.issuer}/device` })
    const pause = () => new Promise((resolve) => setTimeout(resolve, 5_000))
    await pause()
    expect(outcome(await post(parameters(deviceCode)))).toEqual([400, 'authorization_pending'])
    workos.approve(userCode)
    await pause()
    await expectGood(await post(parameters(deviceCode)))
  })

  it('works in one request that waits for the user', { timeout: 40_000 }, async () => {
    const { deviceCode, userCode } = await start()
    setTimeout(() => workos.approve(userCode), 1_000)
    const before = workos.server.count('/oauth2/token')
    await expectGood(await post({ ...parameters(deviceCode), wait: '30' }))
    expect(workos.server.count('/oauth2/token')).toBe(before + 1)
  })

  it('brings what was asked for: neither a refresh token nor an ID token without their scopes', async () => {
    const { deviceCode, userCode } = await start('profile')
    workos.approve(userCode)
    const { status, body } = await post({ ...parameters(deviceCode), wait: '20' })
    expect(status).toBe(200)
    expect(body).not.toHaveProperty('refresh_token')
    expect(body).not.toHaveProperty('id_token')
  })

  it('ends when the user declines, and when the code expires', { timeout: 40_000 }, async () => {
    const [denied, expired] = [await start(), await start()]
    workos.devices.deny(denied.userCode)
    const wait = { wait: '20' }
    expect(outcome(await post({ ...parameters(denied.deviceCode), ...wait }))).toEqual([400, 'access_denied'])
    workos.advance(301_000)
    expect(outcome(await post({ ...parameters(expired.deviceCode), ...wait }))).toEqual([400, 'expired_token'])
  })
})

describe('an authorization code', () => {
  it('of an application with a secret works; the request goes out as a form with Basic', async () => {
    const code = signIn(workos.web.clientId, CALLBACK, { resource: RESOURCE })
    const parameters = { grant_type: 'authorization_code', client_id: workos.web.clientId, redirect_uri: CALLBACK }
    await expectGood(await post({ ...parameters, code }))
    const sent = workos.server.requests.findLast(({ path }) => path === '/oauth2/token')
    expect(sent?.headers['content-type']).toMatch(/^application\/x-www-form-urlencoded/)
    expect(sent?.headers.authorization).toMatch(/^Basic /)
    expect(sent?.body).not.toContain('client_secret')
  })

  it('of a public one works with PKCE, sent as JSON, which AuthKit itself would not take', async () => {
    const verifier = randomBytes(32).toString('base64url')
    const challenge = createHash('sha256').update(verifier).digest('base64url')
    const code = signIn(workos.native.clientId, NATIVE_CALLBACK, { code_challenge: challenge })
    const body = JSON.stringify({
      ...{ grant_type: 'authorization_code', client_id: workos.native.clientId, code },
      ...{ code_verifier: verifier, redirect_uri: NATIVE_CALLBACK },
    })
    const init = { method: 'POST', body, headers: { 'content-type': 'application/json' } }
    expect((await fetch(`${workos.issuer}/oauth2/token`, init)).status).toBe(400)
    const response = await fetch(`${sidecar.helper}/oauth2/token`, init)
    await expectGood({ status: response.status, body: (await response.json()) as Answer['body'] })
  })

  it('without a resource brings a token for the environment, which is one of its audiences', async () => {
    const parameters = { grant_type: 'authorization_code', client_id: workos.web.clientId, redirect_uri: CALLBACK }
    await expectGood(await post({ ...parameters, code: signIn(workos.web.clientId, CALLBACK) }))
  })
})

describe('a refresh token of WorkOS', () => {
  const login = async () => {
    const parameters = { grant_type: 'authorization_code', client_id: workos.web.clientId, redirect_uri: CALLBACK }
    const { body } = await post({ ...parameters, code: signIn(workos.web.clientId, CALLBACK) })
    return body['refresh_token'] as string
  }
  const refresh = (token: string) =>
    post({ grant_type: 'refresh_token', client_id: workos.web.clientId, refresh_token: token })

  it('is rotated with every use, once for all who use it at the same time', async () => {
    const token = await login()
    workos.server.delay(300)
    const before = workos.server.count('/oauth2/token')
    const answers = await Promise.all(Array.from({ length: 10 }, () => refresh(token)))
    expect(workos.server.count('/oauth2/token')).toBe(before + 1)
    expect(new Set(answers.map(({ body }) => body['refresh_token'])).size).toBe(1)
    expect(answers[0]?.body['refresh_token']).not.toBe(token)
    await expectGood(answers[0]!)
  })

  it('works once more within the grace period, and then never', async () => {
    const token = await login()
    await expectGood(await refresh(token))
    await expectGood(await refresh(token))
    workos.advance(11_000)
    expect(outcome(await refresh(token))).toEqual([400, 'invalid_grant'])
  })

  it('that is used elsewhere at the moment: 429 and Retry-After pass through, and it is good afterwards', async () => {
    const token = await login()
    workos.configure({ isBusy: true })
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token })
    body.set('client_id', workos.web.clientId)
    const response = await fetch(`${sidecar.helper}/oauth2/token`, { method: 'POST', body })
    expect([response.status, response.headers.get('retry-after')]).toEqual([429, '1'])
    workos.configure()
    await expectGood(await refresh(token))
  })
})

it('client credentials bring a token of the application for the environment', async () => {
  const { status, body } = await post({ grant_type: 'client_credentials', client_id: workos.worker.clientId })
  expect(status).toBe(200)
  const headers = { authorization: `Bearer ${body['access_token'] as string}` }
  expect((await fetch(`${sidecar.proxy}/a`, { headers })).status).toBe(200)
})

it('an ID token in the place of an access token opens nothing', async () => {
  const parameters = { grant_type: 'authorization_code', client_id: workos.web.clientId, redirect_uri: CALLBACK }
  const { body } = await post({ ...parameters, code: signIn(workos.web.clientId, CALLBACK) })
  const headers = { authorization: `Bearer ${body['id_token'] as string}` }
  expect((await fetch(`${sidecar.proxy}/a`, { headers })).status).toBe(401)
})
