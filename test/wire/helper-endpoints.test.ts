import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { REDIRECT_URI } from '../fakes/authorization-server.ts'
import { createFakeClock, type FakeClock } from '../fakes/clock.ts'
import { expectUnstored } from '../fakes/handed-out.ts'
import { startScriptedEndpoint, type Scripted, type ScriptedEndpoint } from '../fakes/scripted-endpoint.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import { countSpends, startSurroundings, stopSurroundings, type Surroundings } from '../fakes/surroundings.ts'
import { postForm, type TokenAnswer } from '../fakes/token-request.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
let issuer: Surroundings['issuer']
let scripted: ScriptedEndpoint
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar
let clock: FakeClock

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  scripted = await startScriptedEndpoint()
})
beforeEach(async () => {
  clock = createFakeClock()
  sidecar = await start(clock)
  return () => sidecar.stop()
})
afterAll(async () => {
  await stopSurroundings()
  await scripted.stop()
})

async function start(itsClock: FakeClock, more: readonly object[] = []): Promise<FakeSidecar> {
  const one = await startSidecar({
    clock: itsClock,
    env: { SERVICE_SECRET: issuer.clients.service.secret, WEB_SECRET: issuer.clients.web.secret },
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }, ...more],
      upstream: upstream.url,
      helper: {
        timeout: '2s',
        clients: {
          service: {
            issuer: 'main',
            client_id: 'service',
            client_secret: { env: 'SERVICE_SECRET' },
            grants: ['client_credentials'],
            scopes: ['read:orders', 'write:orders'],
          },
          web: {
            issuer: 'main',
            client_id: 'web',
            client_secret: { env: 'WEB_SECRET' },
            redirect_uris: [REDIRECT_URI],
          },
          scripted: {
            issuer: more.length === 0 ? 'main' : 'other',
            client_id: 'scripted',
            client_authentication: 'none',
            grants: ['refresh_token', 'token_exchange'],
            token_endpoint: `${scripted.url}/token`,
            revocation_endpoint: `${scripted.url}/revoke`,
          },
        },
      },
    },
  })
  await one.ready()
  return one
}

const post = async (path: string, parameters: Record<string, string>) =>
  expectUnstored(await postForm(sidecar.helper + path, parameters))

const token = (parameters: Record<string, string>) => post('/oauth2/token', parameters)

/** How many requests the token endpoint gets meanwhile. */
const asked = (run: () => Promise<unknown>) => countSpends(issuer, run)

describe('a token for a client itself', () => {
  const get = (scope = 'read:orders') => token({ grant_type: 'client_credentials', client_id: 'service', scope })

  it('is asked for once, and handed out with what is left of its lifetime', async () => {
    const answers: TokenAnswer[] = []
    const count = await asked(async () => {
      answers.push(...(await Promise.all([get(), get(), get()])))
      clock.advance(100_500)
      answers.push(await get())
    })
    expect(count).toBe(1)
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(new Set(answers.map(({ body }) => body['access_token'])).size).toBe(1)
    expect(answers[0]?.body['expires_in']).toBe(600)
    expect(answers[3]?.body['expires_in']).toBe(499)
    expect(sidecar.lastExchange()).toMatchObject({ client: 'service', grant: 'client_credentials', code: 'ok' })
  })

  it('of another scope is another token; one that is not configured is none', async () => {
    expect(await asked(async () => Promise.all([get(), get('write:orders')]))).toBe(2)
    expect(await asked(async () => expect((await get('admin')).body['error']).toBe('invalid_scope'))).toBe(0)
  })

  it('is renewed ahead of its end while the old one is handed out', async () => {
    const first = await get()
    clock.advance(480_000)
    const before = issuer.requests.token
    expect((await get()).body['access_token']).toBe(first.body['access_token'])
    await expect.poll(() => issuer.requests.token).toBe(before + 1)
    await expect.poll(async () => (await get()).body['access_token']).not.toBe(first.body['access_token'])
    expect(issuer.requests.token).toBe(before + 1)
  })

  it('that cannot be renewed is used to its end, and not a moment longer', async () => {
    const first = await get()
    issuer.fail('token', '500')
    clock.advance(480_000)
    const renewals = await asked(async () => {
      for (let i = 0; i < 3; i += 1) expect((await get()).body['access_token']).toBe(first.body['access_token'])
      await expect.poll(() => sidecar.logText()).toContain('could not be renewed')
    })
    expect(renewals).toBe(1)
    clock.advance(119_000)
    expect(await get()).toMatchObject({ status: 502, body: { code: 'issuer_error' } })
    issuer.fail('token', undefined)
    expect((await get()).status).toBe(200)
  })

  it('is for clients whose configuration says so alone', async () => {
    const answer = await token({ grant_type: 'client_credentials', client_id: 'web' })
    expect(answer).toMatchObject({ status: 400, body: { error: 'unauthorized_client', code: 'grant_not_allowed' } })
  })
})

describe('a token exchange', () => {
  const subject = { grant_type: EXCHANGE, subject_token: 'sss', subject_token_type: 'urn:x' }

  it('is for clients whose configuration says so alone', async () => {
    const answer = await token({ ...subject, client_id: 'web' })
    expect(answer).toMatchObject({ status: 400, body: { error: 'unauthorized_client', code: 'grant_not_allowed' } })
  })

  it('passes on what RFC 8693 knows, and takes an answer that is no access token', async () => {
    scripted.answer({ body: { access_token: 'a', issued_token_type: 'urn:y', token_type: 'N_A', expires_in: '60' } })
    const answer = await token({ ...subject, client_id: 'scripted', audience: 'there', unknown: 'x' })
    expect(answer).toMatchObject({
      status: 200,
      body: { access_token: 'a', issued_token_type: 'urn:y', token_type: 'N_A', expires_in: 60 },
    })
    const { form } = scripted.seen.at(-1) ?? { form: new URLSearchParams() }
    expect(Object.fromEntries(form)).toEqual({ ...subject, client_id: 'scripted', audience: 'there' })
  })
})

describe('the answer of an issuer', () => {
  const refresh = () => token({ grant_type: 'refresh_token', client_id: 'scripted', refresh_token: 'r' })

  it.each<[string, object, object]>([
    ['without expires_in', {}, { access_token: 'a', token_type: 'Bearer' }],
    ['with expires_in as a text', { expires_in: '3599' }, { expires_in: 3599 }],
    ['with empty members', { expires_in: null, refresh_token: '', scope: null, id_token: '' }, { access_token: 'a' }],
    ['with bearer in another case', { token_type: 'bEARER' }, { token_type: 'Bearer' }],
    ['with members of its own', { mfa: { a: 1 } }, { mfa: { a: 1 } }],
  ])('%s is good', async (_what, change, expected) => {
    scripted.answer({ body: { access_token: 'a', token_type: 'Bearer', ...change } })
    const { status, body } = await refresh()
    expect(status).toBe(200)
    expect(body).toMatchObject(expected)
  })

  it.each<[string, object]>([
    ['with a token of a type that is not configured', { token_type: 'DPoP' }],
    ['with an expires_in that is no number', { expires_in: 'soon' }],
    ['with a refresh token that is no text', { refresh_token: 5 }],
    ['with an ID token that is no text', { id_token: {} }],
    ['without an access token', { access_token: '' }],
  ])('%s is not handed out', async (_what, change) => {
    scripted.answer({ body: { access_token: 'a', token_type: 'Bearer', ...change } })
    expect(await refresh()).toMatchObject({ status: 502, body: { code: 'token_validation_failed' } })
  })

  it.each<[string, Scripted, number, object]>([
    [
      'a refusal with line breaks',
      { status: 400, body: { error: 'invalid_grant', error_description: 'AADSTS70008\r\n"x"' } },
      400,
      { error: 'invalid_grant', error_description: "AADSTS70008 'x'", code: 'refused_by_issuer' },
    ],
    [
      'a refusal with members of its own',
      { status: 403, body: { error: 'mfa_required', mfa_token: 'm', code: 'x' } },
      403,
      { error: 'mfa_required', mfa_token: 'm', code: 'refused_by_issuer' },
    ],
    [
      'a refusal with the status of success',
      { status: 200, body: { error: 'invalid_grant' } },
      400,
      { error: 'invalid_grant' },
    ],
    [
      'a refusal with a challenge',
      { status: 401, body: { error: 'invalid_client' }, headers: { 'www-authenticate': 'Basic' } },
      502,
      { error: 'server_error', code: 'client_refused_by_issuer' },
    ],
    [
      'a challenge alone',
      { status: 401, body: '', headers: { 'www-authenticate': 'Basic' } },
      502,
      { code: 'client_refused_by_issuer' },
    ],
    [
      'a refusal of the client in the words of Keycloak',
      { status: 401, body: { error: 'unauthorized_client' } },
      502,
      { error: 'server_error', code: 'client_refused_by_issuer' },
    ],
    [
      'a refusal of this grant for the client',
      { status: 400, body: { error: 'unauthorized_client' } },
      400,
      { error: 'unauthorized_client', code: 'refused_by_issuer' },
    ],
    [
      'too many requests',
      { status: 429, body: 'x', headers: { 'retry-after': '7' } },
      503,
      { error: 'temporarily_unavailable', code: 'issuer_busy' },
    ],
    [
      'a page of a firewall',
      { status: 403, body: '<html>' },
      502,
      { error: 'temporarily_unavailable', code: 'issuer_error' },
    ],
    ['a redirect', { status: 302, body: '', headers: { location: '/x' } }, 502, { code: 'issuer_error' }],
    [
      'a member twice',
      {
        status: 200,
        body: '{"access_token":"a","access_token":"b","token_type":"Bearer"}',
        headers: { 'content-type': 'application/json' },
      },
      502,
      { code: 'token_validation_failed' },
    ],
  ])('%s', async (_what, answer, status, expected) => {
    scripted.answer(answer)
    const got = await refresh()
    expect(got.status).toBe(status)
    expect(got.body).toMatchObject(expected)
  })
})

describe('revocation', () => {
  it.each(['/oauth2/revoke', '/oauth/revoke'])('at %s ends the session at the issuer', async (path) => {
    const refresh_token = await issuer.signIn()
    const answer = await post(path, { client_id: 'web', token: refresh_token, token_type_hint: 'refresh_token' })
    expect(answer).toMatchObject({ status: 200, text: '{}' })
    expect(sidecar.lastExchange()).toMatchObject({ client: 'web', grant: 'revocation', code: 'ok' })
    const after = await token({ grant_type: 'refresh_token', client_id: 'web', refresh_token })
    expect(after.body['error']).toBe('invalid_grant')
  })

  it.each<[string, Scripted, number, string]>([
    ['OK in plain text (Auth0)', { status: 200, body: 'OK' }, 200, ''],
    ['an answer without a body', { status: 204, body: '' }, 200, ''],
    ['a refusal', { status: 400, body: { error: 'unsupported_token_type' } }, 400, 'unsupported_token_type'],
    ['a failure', { status: 503, body: 'x' }, 502, 'whether the token was revoked is not known'],
  ])('takes %s for what it is', async (_what, answer, status, words) => {
    scripted.answer(answer)
    const got = await post('/oauth2/revoke', { client_id: 'scripted', token: 't', token_type_hint: 'access_token' })
    expect(got.status).toBe(status)
    expect(got.text).toContain(words)
    expect(scripted.seen.at(-1)?.path).toBe('/revoke')
    expect(Object.fromEntries(scripted.seen.at(-1)?.form ?? [])).toEqual({
      token: 't',
      token_type_hint: 'access_token',
      client_id: 'scripted',
    })
  })

  it('of nothing is a bad request', async () => {
    expect(await post('/oauth2/revoke', { client_id: 'web' })).toMatchObject({ status: 400 })
  })
})

describe('the metadata', () => {
  const read = async (path = '', one = sidecar) => {
    const response = await fetch(`${one.helper}/.well-known/oauth-authorization-server${path}`)
    return { status: response.status, body: (await response.json()) as TokenAnswer['body'] }
  }

  it("is the issuer's own with the endpoints of the helper, and promises no more than is allowed", async () => {
    const { status, body } = await read()
    expect(status).toBe(200)
    expect(body).toMatchObject({
      issuer: issuer.issuer,
      authorization_endpoint: `${issuer.issuer}/auth`,
      jwks_uri: `${issuer.issuer}/jwks`,
      token_endpoint: `${sidecar.helper}/oauth2/token`,
      device_authorization_endpoint: `${sidecar.helper}/oauth2/device_authorization`,
      revocation_endpoint: `${sidecar.helper}/oauth2/revoke`,
      token_endpoint_auth_methods_supported: ['none'],
    })
    expect(body['grant_types_supported']).toEqual(
      expect.arrayContaining(['refresh_token', 'authorization_code', 'client_credentials', EXCHANGE]),
    )
    expect(body).not.toHaveProperty('pushed_authorization_request_endpoint')
    expect(sidecar.lastExchange()).toMatchObject({ grant: 'metadata', code: 'ok' })
  })

  it('of several issuers is found under the name of each', async () => {
    const other = { name: 'other', issuer: 'https://other.example', audience: 'x', jwks_uri: `${issuer.issuer}/jwks` }
    const two = await start(createFakeClock(), [other])
    const { status, body } = await read('', two)
    expect(status).toBe(404)
    expect(body['error_description']).toContain('/.well-known/oauth-authorization-server/other')
    expect((await read('/main', two)).body).toMatchObject({ issuer: issuer.issuer })
    // Nothing else is known of this one, but the helper is here.
    const silent = await read('/other', two)
    expect(silent.body).toMatchObject({
      issuer: 'https://other.example',
      token_endpoint: `${two.helper}/oauth2/token`,
      grant_types_supported: ['refresh_token', EXCHANGE],
    })
    expect(silent.body).not.toHaveProperty('device_authorization_endpoint')
    await two.stop()
  })

  it('is read with GET, and by no browser', async () => {
    const url = `${sidecar.helper}/.well-known/oauth-authorization-server`
    expect((await fetch(url, { method: 'POST' })).status).toBe(405)
    expect((await fetch(url, { headers: { origin: 'https://evil.example' } })).status).toBe(403)
  })
})
