import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuth0, type Auth0 } from '../fakes/auth0.ts'
import { readDocument, sendHar, type DocumentedAnswer } from '../fakes/documented-requests.ts'
import { ALL_TOKENS, expectAllTokens } from '../fakes/handed-out.ts'
import { areInstalled } from '../fakes/programs.ts'
import { DEVICE_CODE } from '../fakes/provider.ts'
import { startHelperExample } from '../fakes/helper-example.ts'
import { stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { postForm } from '../fakes/token-request.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const run = promisify(execFile)
const TENANT = 'tenant.eu.auth0.com'
const CALLBACK = 'https://app.example.com/callback'
const MOBILE = `https://${TENANT}/mobile`

let auth0: Auth0
let upstream: FakeUpstream
let sidecar: FakeSidecar

beforeAll(async () => {
  auth0 = await startAuth0()
  upstream = await startUpstream()
  sidecar = await startHelperExample({
    name: 'auth0-helper',
    issuer: auth0.issuer,
    upstream: upstream.url,
    clients: auth0,
  })
})
afterEach(() => auth0.configure())
afterAll(async () => {
  await stopSidecars()
  await auth0.server.stop()
  await upstream.stop()
})

interface Login {
  readonly client: { readonly clientId: string }
  readonly redirectUri: string
  readonly verifier?: string
  readonly more?: Readonly<Record<string, string>>
}

/** A code, as it comes back to the application from the pages of the tenant. */
function signIn({ client, redirectUri, verifier, more = {} }: Login): string {
  const challenge = verifier !== undefined && {
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  }
  const asked = { client_id: client.clientId, redirect_uri: redirectUri, audience: auth0.audience }
  return auth0.issueCode({ ...asked, ...more, ...challenge })
}

const newVerifier = () => randomBytes(32).toString('base64url')

const post = (parameters: Record<string, string>, path = '/oauth/token'): Promise<DocumentedAnswer> =>
  postForm(sidecar.helper + path, parameters)

/** How many requests the token endpoint of the tenant gets meanwhile. */
async function spends(act: () => Promise<unknown>): Promise<number> {
  const before = auth0.server.count('/oauth/token')
  await act()
  return auth0.server.count('/oauth/token') - before
}

const expectGood = (answer: DocumentedAnswer) => expectAllTokens(sidecar, answer)

describe('document 001, an authorization code of a confidential client', () => {
  const document = (secret: string) =>
    readDocument('auth0-code.har', {
      '${account.namespace}': TENANT,
      YOUR_AUTHORIZATION_CODE: signIn({ client: auth0.web, redirectUri: CALLBACK }),
      '${account.clientId}': auth0.web.clientId,
      YOUR_CLIENT_SECRET: secret,
      '${account.callback}': CALLBACK,
    })

  it('is what the tenant takes', async () => {
    expect((await sendHar(document(auth0.web.secret), auth0.server.origin)).body).toMatchObject(ALL_TOKENS)
  })

  it('works through the helper, request for request, with the secret that the helper knows its caller by', async () => {
    const SHARED = 'shared-secret-of-the-backend'
    const known = await startHelperExample({
      ...{ name: 'auth0-helper', issuer: auth0.issuer, upstream: upstream.url, clients: auth0 },
      helper: { callers: { backend: { shared_secret: { env: 'SHARED' } } } },
      env: { SHARED },
    })
    await expectGood(await sendHar(document(SHARED), known.helper))
    expect(known.lastExchange()).toMatchObject({ caller: 'backend', code: 'ok' })
    const { status, body } = await sendHar(document(auth0.web.secret), known.helper)
    expect([status, body['error']]).toEqual([401, 'invalid_client'])
    await known.stop()
  })

  it('is a clear 400 where callers have no secret: that of the application is not theirs to send', async () => {
    let answer: DocumentedAnswer | undefined
    const send = async () => (answer = await sendHar(document(auth0.web.secret), sidecar.helper))
    expect(await spends(send)).toBe(0)
    expect(answer?.status).toBe(400)
    expect(answer?.body['error_description']).toMatch(/Client credentials are added here/)
  })

  it('works through the helper without the secret', async () => {
    const answer = await sendHar(document('x'), sidecar.helper, (har) => {
      har.postData.text = har.postData.text.replace('"client_secret": "x",', '')
    })
    await expectGood(answer)
    expect(answer.body['expires_in']).toBe(86_400)
  })

  it('works when the answer has no expires_in, as the document shows it', async () => {
    auth0.configure({ sendsExpiresIn: false })
    const answer = await sendHar(document('x'), sidecar.helper, (har) => {
      har.postData.text = har.postData.text.replace('"client_secret": "x",', '')
    })
    await expectGood(answer)
    expect(answer.body).not.toHaveProperty('expires_in')
  })

  it('reaches the tenant as a form with the secret, and with nothing else of the caller', async () => {
    const code = signIn({ client: auth0.web, redirectUri: CALLBACK })
    const response = await fetch(`${sidecar.helper}/oauth/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', cookie: 'a=b' },
      body: JSON.stringify({
        ...{ grant_type: 'authorization_code', code, client_id: auth0.web.clientId, redirect_uri: CALLBACK },
        ...{ unknown: 'x' },
      }),
    })
    expect(response.status).toBe(200)
    const { headers, body } = auth0.server.requests.findLast(({ path }) => path === '/oauth/token') ?? expect.fail()
    expect(headers['content-type']).toMatch(/^application\/x-www-form-urlencoded/)
    expect(headers).not.toHaveProperty('cookie')
    expect(Object.fromEntries(new URLSearchParams(body))).toEqual({
      ...{ grant_type: 'authorization_code', code, redirect_uri: CALLBACK },
      ...{ client_id: auth0.web.clientId, client_secret: auth0.web.secret },
    })
  })

  it('with another redirect_uri is refused without a call', async () => {
    const parameters = {
      ...{ grant_type: 'authorization_code', client_id: auth0.web.clientId },
      ...{ code: 'x', redirect_uri: `${CALLBACK}/` },
    }
    let answer: DocumentedAnswer | undefined
    expect(await spends(async () => (answer = await post(parameters)))).toBe(0)
    expect(answer?.status).toBe(400)
  })
})

describe('document 002, an authorization code with PKCE', () => {
  const document = (verifier: string) =>
    readDocument('auth0-pkce.har', {
      '${account.namespace}': TENANT,
      '${account.clientId}': auth0.native.clientId,
      YOUR_GENERATED_CODE_VERIFIER: verifier,
      YOUR_AUTHORIZATION_CODE: signIn({ client: auth0.native, redirectUri: MOBILE, verifier }),
    })

  it('is what the tenant takes', async () => {
    expect((await sendHar(document(newVerifier()), auth0.server.origin)).body).toMatchObject(ALL_TOKENS)
  })

  it('works through the helper, request for request', async () => {
    await expectGood(await sendHar(document(newVerifier()), sidecar.helper))
  })

  it('has the verifier that the challenge was made of', async () => {
    const text = document(newVerifier()).replace(/(code_verifier\\": \\")[^\\]+/, `$1${newVerifier()}`)
    const { status, body } = await sendHar(text, sidecar.helper)
    expect([status, body['error'], body['code']]).toEqual([400, 'invalid_grant', 'refused_by_issuer'])
  })

  it('is refused before a call when the verifier is none', async () => {
    const text = document(newVerifier()).replace(/(code_verifier\\": \\")[^\\]+/, '$1short')
    let answer: DocumentedAnswer | undefined
    expect(await spends(async () => (answer = await sendHar(text, sidecar.helper)))).toBe(0)
    expect(answer?.body).toMatchObject({ error: 'invalid_request' })
  })
})

describe('document 003, the same as a page with samples', () => {
  const test = areInstalled('curl') ? it : it.skip

  test.each(['tenant', 'helper'])('that for curl works against the %s', async (place) => {
    const verifier = newVerifier()
    const text = readDocument('auth0-pkce.curl', {
      'https://YOUR_AUTH0_DOMAIN': place === 'tenant' ? auth0.server.origin : sidecar.helper,
      YOUR_GENERATED_CODE_VERIFIER: verifier,
      YOUR_AUTHORIZATION_CODE: signIn({ client: auth0.native, redirectUri: MOBILE, verifier }),
      YOUR_CLIENT_ID: auth0.native.clientId,
      YOUR_CALLBACK_URL: MOBILE,
    })
    const { stdout } = await run('sh', ['-c', text])
    expect(JSON.parse(stdout)).toMatchObject(ALL_TOKENS)
  })
})

describe('document 000, the device flow', () => {
  const start = () =>
    post(
      { client_id: auth0.native.clientId, scope: 'openid offline_access', audience: auth0.audience },
      '/oauth/device/code',
    )
  const document = (deviceCode: string) =>
    readDocument('auth0-device.har', {
      '${account.namespace}': TENANT,
      '${account.clientId}': auth0.native.clientId,
      YOUR_GENERATED_DEVICE_CODE: deviceCode,
    })
  const poll = (deviceCode: string, more: Record<string, string> = {}) =>
    post({ grant_type: DEVICE_CODE, device_code: deviceCode, client_id: auth0.native.clientId, ...more })

  it('is, as it is printed, a clear 400: the header says form, the body is JSON', async () => {
    let answer: DocumentedAnswer | undefined
    expect(await spends(async () => (answer = await sendHar(document('x'), sidecar.helper)))).toBe(0)
    expect(answer?.status).toBe(400)
    expect(answer?.body).toMatchObject({
      error: 'invalid_request',
      error_description: expect.stringMatching(/body is JSON, but Content-Type says/) as string,
    })
  })

  it('is a clear 400, too, with the header of JSON: the grant type is percent-encoded once too often', async () => {
    const correct = (har: { headers: { value: string }[] }) => void (har.headers[0]!.value = 'application/json')
    let answer: DocumentedAnswer | undefined
    expect(await spends(async () => (answer = await sendHar(document('x'), sidecar.helper, correct)))).toBe(0)
    expect(answer?.status).toBe(400)
    expect(answer?.body).toMatchObject({
      error: 'unsupported_grant_type',
      error_description: expect.stringMatching(/percent-encoded/) as string,
    })
  })

  it('works as the JSON that was meant, and as a form, once the user agreed', { timeout: 40_000 }, async () => {
    const { status, body } = await start()
    expect(status).toBe(200)
    expect(body).toMatchObject({ expires_in: 900, interval: 5, verification_uri: `${auth0.issuer}activate` })
    const deviceCode = body['device_code'] as string
    expect((await poll(deviceCode)).body).toMatchObject({ error: 'authorization_pending' })
    expect((await poll(deviceCode)).body).toMatchObject({ error: 'slow_down' })
    setTimeout(() => auth0.approve(body['user_code'] as string), 1_000)
    const answer = await sendHar(document(deviceCode), sidecar.helper, (har) => {
      har.headers[0]!.value = 'application/json'
      har.postData.text = decodeURIComponent(har.postData.text).replace('}', ',"wait":"30"}')
    })
    await expectGood(answer)
    expect((await poll(deviceCode)).body).toMatchObject({ error: 'invalid_grant' })
  })

  it('has the refusals of RFC 8628 where the tenant says 403', { timeout: 40_000 }, async () => {
    const codes = (await Promise.all([start(), start(), start()])).map(({ body }) => ({
      deviceCode: body['device_code'] as string,
      userCode: body['user_code'] as string,
    }))
    const [pending, denied, expired] = codes as [(typeof codes)[0], (typeof codes)[0], (typeof codes)[0]]
    auth0.devices.deny(denied.userCode)
    const outcome = ({ status, body }: DocumentedAnswer) => [status, body['error']]
    const waited = await Promise.all([poll(pending.deviceCode, { wait: '6' }), poll(denied.deviceCode, { wait: '20' })])
    expect(waited.map(outcome)).toEqual([
      [400, 'authorization_pending'],
      [400, 'access_denied'],
    ])
    auth0.advance(901_000)
    expect(outcome(await poll(expired.deviceCode, { wait: '20' }))).toEqual([400, 'expired_token'])
    // Once: from then on the code is as good as unknown.
    expect(outcome(await poll(expired.deviceCode, { wait: '20' }))).toEqual([400, 'invalid_grant'])
  })
})

describe('a refresh token of Auth0', () => {
  const login = async () => {
    const parameters = { grant_type: 'authorization_code', client_id: auth0.web.clientId, redirect_uri: CALLBACK }
    const { body } = await post({ ...parameters, code: signIn({ client: auth0.web, redirectUri: CALLBACK }) })
    return body['refresh_token'] as string
  }
  const refresh = (token: string, more: Record<string, string> = {}) =>
    post({ grant_type: 'refresh_token', client_id: auth0.web.clientId, refresh_token: token, ...more })

  it('is rotated, for ten callers at once as for one, and its family lives', async () => {
    const token = await login()
    auth0.server.delay(300)
    let answers: DocumentedAnswer[] = []
    const count = await spends(async () => {
      answers = await Promise.all(Array.from({ length: 10 }, () => refresh(token)))
    })
    auth0.server.delay(0)
    expect(count).toBe(1)
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1)
    await expectGood(answers[0]!)
    await expectGood(await refresh(answers[0]!.body['refresh_token'] as string))
  })

  it('that was used before ends the family, and the 403 of the tenant passes through', async () => {
    const token = await login()
    const { body: next } = await refresh(token)
    const { status, body } = await refresh(token)
    expect(status).toBe(403)
    expect(body).toMatchObject({
      error: 'invalid_grant',
      error_description: 'Unknown or invalid refresh token.',
      code: 'refused_by_issuer',
    })
    expect((await refresh(next['refresh_token'] as string)).status).toBe(403)
  })

  it('that was used a moment ago works within the leeway of the application', async () => {
    auth0.configure({ leewayMs: 30_000 })
    const token = await login()
    await expectGood(await refresh(token))
    await expectGood(await refresh(token))
    auth0.advance(31_000)
    expect((await refresh(token)).status).toBe(403)
  })

  it('that is not rotated stays, and nothing is invented in its place', async () => {
    auth0.configure({ rotates: false })
    const token = await login()
    for (let i = 0; i < 2; i += 1) {
      const { status, body } = await refresh(token)
      expect(status).toBe(200)
      expect(body).not.toHaveProperty('refresh_token')
    }
  })

  it.each([401, 403] as const)(
    'that needs a second factor: %i and its mfa_token pass through, unlogged',
    async (mfa) => {
      const token = await login()
      auth0.configure({ mfa })
      const { status, body } = await refresh(token)
      expect(status).toBe(mfa)
      expect(body).toMatchObject({ error: 'mfa_required', mfa_token: 'Fe26.2*mfa-token' })
      expect(sidecar.logText()).not.toContain('Fe26.2*mfa-token')
      auth0.configure()
      expect((await refresh(token)).status).toBe(200)
    },
  )

  it('is not spent while the tenant says 429', async () => {
    const token = await login()
    auth0.configure({ remaining: 0 })
    const { status, body } = await refresh(token)
    expect(status).toBe(429)
    expect(body).toMatchObject({ error: 'too_many_requests' })
    auth0.configure()
    expect((await refresh(token)).status).toBe(200)
  })

  it('brings access tokens of the profile of RFC 9068 as well', async () => {
    const token = await login()
    auth0.configure({ profile: 'rfc9068' })
    await expectGood(await refresh(token))
  })

  it('is taken back at the tenant, whose answer is a text', async () => {
    const token = await login()
    const body = new URLSearchParams({ token, client_id: auth0.web.clientId })
    const response = await fetch(`${sidecar.helper}/oauth/revoke`, { method: 'POST', body })
    expect([response.status, await response.text()]).toEqual([200, '{}'])
    expect(auth0.refreshTokens.isAlive(token)).toBe(false)
  })
})

describe('an answer of Auth0', () => {
  it('with an opaque access token, which no audience was named for, passes', async () => {
    const code = signIn({ client: auth0.web, redirectUri: CALLBACK, more: { audience: '' } })
    const parameters = { grant_type: 'authorization_code', client_id: auth0.web.clientId, redirect_uri: CALLBACK }
    auth0.configure({ sendsExpiresIn: false })
    const { status, body } = await post({ ...parameters, code })
    expect(status).toBe(200)
    expect(body['id_token']).toMatch(/^eyJ/)
  })

  it('with a nonce is compared with that of the caller', async () => {
    const parameters = { grant_type: 'authorization_code', client_id: auth0.web.clientId, redirect_uri: CALLBACK }
    const code = () => signIn({ client: auth0.web, redirectUri: CALLBACK, more: { nonce: 'n-1' } })
    expect((await post({ ...parameters, code: code(), nonce: 'n-1' })).status).toBe(200)
    expect((await post({ ...parameters, code: code(), nonce: 'n-2' })).body).toMatchObject({
      code: 'token_validation_failed',
    })
  })

  it('to client credentials opens the API', async () => {
    const parameters = { grant_type: 'client_credentials', client_id: auth0.worker.clientId, audience: auth0.audience }
    const { status, body } = await post(parameters)
    expect(status).toBe(200)
    const headers = { authorization: `Bearer ${body['access_token'] as string}` }
    expect((await fetch(`${sidecar.proxy}/a`, { headers })).status).toBe(200)
  })
})
