import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { REDIRECT_URI } from '../fakes/authorization-server.ts'
import { expectToOpen, expectUnstored } from '../fakes/handed-out.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import {
  countSpends,
  startSurroundings,
  stopSurroundings,
  toHelperConfig,
  type Surroundings,
} from '../fakes/surroundings.ts'
import { postForm, type TokenAnswer } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar
const VERIFIER = 'a-verifier-of-this-test-that-is-long-enough-0'

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  const redirect_uris = [REDIRECT_URI]
  sidecar = await startSidecar({
    config: toHelperConfig(issuer, upstream, {
      timeout: '1s',
      clients: {
        web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' }, redirect_uris, scopes: ['openid'] },
        native: { client_id: 'native', client_authentication: 'none', redirect_uris },
        bare: { client_id: 'web-post', client_secret: { env: 'WEB_SECRET' } },
        refresh: { client_id: 'device', client_authentication: 'none', grants: ['refresh_token'] },
      },
    }),
    env: { WEB_SECRET: issuer.clients.web.secret },
  })
  await sidecar.ready()
})

afterEach(() => {
  issuer.fail('token', undefined)
  issuer.delayTokens(0)
})

afterAll(stopSurroundings)

const post = async (parameters: Record<string, string>, path = '/oauth2/token') =>
  expectUnstored(await postForm(sidecar.helper + path, parameters))

const spend = (code: string, more: Record<string, string> = {}, path?: string) =>
  post({ grant_type: 'authorization_code', client_id: 'web', redirect_uri: REDIRECT_URI, code, ...more }, path)

/** How many requests the token endpoint gets meanwhile. */
const spends = (run: () => Promise<unknown>) => countSpends(issuer, run)

describe('an authorization code', () => {
  it.each(['/oauth2/token', '/oauth/token'])(
    'is spent at %s with the secret that the caller does not have',
    async (path) => {
      const { status, body } = await spend(await issuer.issueCode(), {}, path)
      expect(status).toBe(200)
      expect(body).toMatchObject({
        token_type: 'Bearer',
        expires_in: 600,
        id_token: expect.stringMatching(/^eyJ/) as string,
      })
      expect(body['refresh_token']).toEqual(expect.any(String))
      await expectToOpen(sidecar, body['access_token'])
      expect(sidecar.lastExchange()).toMatchObject({
        client: 'web',
        grant: 'authorization_code',
        code: 'ok',
        status: 200,
      })
    },
  )

  it.each(['web', 'native'])('with a proof key is spent for %s, and with another key it is not', async (clientId) => {
    const issue = () => issuer.issueCode({ clientId, codeVerifier: VERIFIER })
    const good = await spend(await issue(), { client_id: clientId, code_verifier: VERIFIER })
    expect(good.status).toBe(200)
    const bad = await spend(await issue(), { client_id: clientId, code_verifier: `${VERIFIER}x` })
    expect(bad.status).toBe(400)
    expect(bad.body).toMatchObject({ error: 'invalid_grant', code: 'refused_by_issuer' })
  })

  it('that was issued with a proof key is not spent without it', async () => {
    const { body } = await spend(await issuer.issueCode({ codeVerifier: VERIFIER }))
    expect(body).toMatchObject({ error: 'invalid_grant', code: 'refused_by_issuer' })
  })

  it('that twenty callers spend at once is spent once, and what it was spent for lives', async () => {
    const code = await issuer.issueCode()
    issuer.delayTokens(200)
    let answers: TokenAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all(Array.from({ length: 20 }, () => spend(code)))
    })
    expect(count).toBe(1)
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1)
    const refresh_token = answers[0]?.body['refresh_token'] as string
    expect((await post({ grant_type: 'refresh_token', client_id: 'web', refresh_token })).status).toBe(200)
  })

  it('whose answer is lost is not spent again by the helper', async () => {
    const code = await issuer.issueCode()
    issuer.fail('token', 'reset')
    let answer: TokenAnswer | undefined
    expect(await spends(async () => (answer = await spend(code)))).toBe(1)
    expect(answer).toMatchObject({ status: 502, body: { error: 'temporarily_unavailable', code: 'outcome_unknown' } })
    expect(answer?.body['error_description']).toContain('may be spent')
  })
})

describe('a code is not spent', () => {
  it.each<[string, Record<string, string>, string]>([
    ['for another redirect_uri', { redirect_uri: `${REDIRECT_URI}/` }, 'parameter_not_allowed invalid_request'],
    ['without a redirect_uri', { redirect_uri: '' }, 'request_invalid invalid_request'],
    ['for a client without redirect_uris', { client_id: 'web-post' }, 'parameter_not_allowed invalid_request'],
    ['without a code', { code: '' }, 'request_invalid invalid_request'],
    ['with a short verifier', { code_verifier: 'short' }, 'request_invalid invalid_request'],
    ['for a public client without a verifier', { client_id: 'native' }, 'request_invalid invalid_request'],
    ['for a client without this grant', { client_id: 'device' }, 'grant_not_allowed unauthorized_client'],
    ['with a scope that is not configured', { scope: 'openid admin' }, 'parameter_not_allowed invalid_scope'],
  ])('%s', async (_what, change, expected) => {
    let answer: TokenAnswer | undefined
    expect(await spends(async () => (answer = await spend('x', change)))).toBe(0)
    expect(answer?.status).toBe(400)
    expect(`${String(answer?.body['code'])} ${String(answer?.body['error'])}`).toBe(expected)
  })
})

describe('what a request of a document shows wrong is said in words:', () => {
  const send = async (body: string, type: string) => {
    const response = await fetch(`${sidecar.helper}/oauth/token`, {
      method: 'POST',
      body,
      headers: { 'content-type': type },
    })
    return { status: response.status, body: (await response.json()) as TokenAnswer['body'] }
  }
  const GRANT = 'urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code'

  it('a JSON body under the name of a form', async () => {
    const text = `{"grant_type":"${GRANT}","device_code": "YOUR_GENERATED_DEVICE_CODE", "client_id": "device" }`
    const { status, body } = await send(text, 'application/x-www-form-urlencoded')
    expect(status).toBe(400)
    expect(body['error']).toBe('invalid_request')
    expect(body['error_description']).toContain('send Content-Type: application/json')
  })

  it('a grant type that is percent-encoded in JSON', async () => {
    const { status, body } = await send(`{"grant_type":"${GRANT}","client_id":"device"}`, 'application/json')
    expect(status).toBe(400)
    expect(body['error']).toBe('unsupported_grant_type')
    expect(body['error_description']).toContain('percent-encoded once too often')
  })

  it.each([
    ['a member twice', '{"client_id":"web","client_id":"native"}', 'has a member twice'],
    ['a member within a member', `{"a":${'['.repeat(30)}${']'.repeat(30)}}`, 'nested too deeply'],
    ['a body that is not UTF-8', '\xff', 'not UTF-8'],
  ])('%s', async (_what, text, words) => {
    const response = await fetch(`${sidecar.helper}/oauth/token`, {
      method: 'POST',
      body: Buffer.from(text, 'latin1'),
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(400)
    expect(((await response.json()) as TokenAnswer['body'])['error_description']).toContain(words)
  })
})
