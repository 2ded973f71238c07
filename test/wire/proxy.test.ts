import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { PREFACE } from '../fakes/http2-raw.ts'
import { openRaw, sendRaw, rawRequest } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      rules: [
        { name: 'public', prefix: ['/public'], access: 'public' },
        { name: 'optional', prefix: ['/optional'], access: 'optional' },
        { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
        { name: 'either', prefix: ['/either'], scopes: { any: ['admin', 'read:orders'] } },
        { name: 'org', prefix: ['/org'], claims: [{ claim: 'org_id', any_of: ['org_2'] }] },
        { name: 'roles', prefix: ['/roles'], roles: { any: ['boss'] }, permissions: { all: ['a'] } },
        { name: 'write', prefix: ['/orders'], methods: ['POST'], scopes: { all: ['write:orders'] } },
      ],
      identity: {
        headers: [
          { header: 'x-auth-org', claim: 'org_id' },
          { header: 'x-auth-roles', claim: 'https://bearward.test/roles', format: 'csv' },
        ],
      },
    },
  })
  await sidecar.ready()
})

afterEach(() => void upstream.requests.splice(0))
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
})

const get = (path: string, token?: string, init: RequestInit = {}) =>
  fetch(sidecar.proxy + path, {
    ...init,
    headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...init.headers },
  })

/** The code of a refusal, from its body; asserts that log and challenge agree and that the backend saw nothing. */
async function refusal(response: Response): Promise<string> {
  const problem = (await response.json()) as { code: string; status: number; request_id: string }
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  expect(problem.status).toBe(response.status)
  expect(sidecar.lastRequest()).toMatchObject({
    code: problem.code,
    status: problem.status,
    request_id: problem.request_id,
  })
  expect(response.headers.has('www-authenticate')).toBe(
    response.status === 401 || problem.code === 'scope_insufficient',
  )
  expect(upstream.requests).toEqual([])
  return problem.code
}

describe('a request with a valid token', () => {
  it('arrives with the claims as headers, without the token', async () => {
    const response = await get('/orders?x=1', issuer.signAccessToken({ sub: 'user-7' }))
    expect(response.status).toBe(200)
    const [seen] = upstream.requests
    expect(seen?.url).toBe('/orders?x=1')
    expect(seen?.headers).toMatchObject({
      'x-auth-subject': 'user-7',
      'x-auth-issuer': issuer.issuer,
      'x-auth-client-id': 'web',
      'x-auth-scope': 'read:orders',
      'x-auth-org': 'org_1',
      'x-auth-roles': 'reader,a%2Cb',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': new URL(sidecar.proxy).host,
      host: new URL(sidecar.proxy).host,
    })
    expect(seen?.headers).not.toHaveProperty('authorization')
    expect(sidecar.lastRequest()).toMatchObject({
      rule: 'default',
      code: 'ok',
      status: 200,
      path: '/orders',
      issuer: 'main',
    })
  })

  it('from client credentials of a real provider passes', async () => {
    const { id, secret } = issuer.clients.service
    const response = await fetch(`${issuer.issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${id}:${encodeURIComponent(secret)}`)}` },
      body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'read:orders' }),
    })
    const { access_token: token } = (await response.json()) as { access_token: string }
    expect((await get('/orders', token)).status).toBe(200)
  })

  it('gets the response as the backend sent it', async () => {
    const other = await startUpstream((_request, response) => {
      response.writeHead(418, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Odd', 'caf\xe9', 'Connection', 'x-odd-not'])
      response.end('short and stout')
    })
    const through = await startSidecar({
      config: { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream: other.url },
    })
    await through.ready()
    const response = await fetch(through.proxy, { headers: { authorization: `Bearer ${issuer.signAccessToken()}` } })
    expect(response.status).toBe(418)
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2'])
    expect(response.headers.get('x-odd')).toBe('café')
    expect(await response.text()).toBe('short and stout')
    await through.stop()
    await other.stop()
  })
})

describe('a rule', () => {
  it('for public paths passes everything on without identity, also a bad token', async () => {
    expect((await get('/public/a')).status).toBe(200)
    expect((await get('/public/a', 'garbage', { headers: { 'x-auth-subject': 'spoofed' } })).status).toBe(200)
    for (const { headers } of upstream.requests) {
      expect(Object.keys(headers).filter((name) => /^x-auth|^authorization/.test(name))).toEqual([])
    }
  })

  it('for optional paths passes the absence of a token, but not a bad one', async () => {
    expect((await get('/optional')).status).toBe(200)
    expect((await get('/optional', issuer.signAccessToken())).status).toBe(200)
    expect(upstream.requests.map(({ headers }) => headers['x-auth-subject'])).toEqual([undefined, 'user-1'])
    upstream.requests.splice(0)
    expect(await refusal(await get('/optional', 'garbage'))).toBe('token_malformed')
  })

  it('asks for all of some scopes, or any of them', async () => {
    const response = await get('/admin', issuer.signAccessToken())
    expect(response.status).toBe(403)
    expect(response.headers.get('www-authenticate')).toContain('error="insufficient_scope"')
    expect(response.headers.get('www-authenticate')).toContain('scope="admin"')
    expect(await refusal(response)).toBe('scope_insufficient')
    expect((await get('/admin', issuer.signAccessToken({ scope: 'admin' }))).status).toBe(200)
    expect((await get('/either', issuer.signAccessToken())).status).toBe(200)
    upstream.requests.splice(0)
    expect(await refusal(await get('/either', issuer.signAccessToken({ scope: 'other' })))).toBe('scope_insufficient')
  })

  it('asks for a claim', async () => {
    expect(await refusal(await get('/org', issuer.signAccessToken()))).toBe('claims_forbidden')
    expect((await get('/org', issuer.signAccessToken({ org_id: 'org_2' }))).status).toBe(200)
    expect((await get('/org', issuer.signAccessToken({ org_id: ['org_1', 'org_2'] }))).status).toBe(200)
  })

  it('may ask for roles and permissions, which scopes of the same name are not', async () => {
    const call = async (claims: Record<string, unknown>) => get('/roles', issuer.signAccessToken(claims))
    expect((await call({ roles: ['boss'], permissions: ['a', 'b'] })).status).toBe(200)
    upstream.requests.splice(0)
    expect(await refusal(await call({ scope: 'boss a' }))).toBe('claims_forbidden')
    expect(await refusal(await call({ roles: ['boss'], permissions: ['b'] }))).toBe('claims_forbidden')
  })

  it('may be for some methods, which a header cannot change', async () => {
    const token = issuer.signAccessToken()
    expect(await refusal(await get('/orders', token, { method: 'POST' }))).toBe('scope_insufficient')
    expect((await get('/orders', token, { headers: { 'x-http-method-override': 'POST' } })).status).toBe(200)
    expect(upstream.requests[0]?.headers).not.toHaveProperty('x-http-method-override')
  })
})

describe('a request is refused', () => {
  it('without credentials: 401 and a bare challenge', async () => {
    const response = await get('/orders')
    expect(response.status).toBe(401)
    expect(response.headers.get('www-authenticate')).toBe('Bearer realm="api"')
    expect(await refusal(response)).toBe('credentials_missing')
  })

  const now = Math.floor(Date.now() / 1000)
  it.each<[string, number, () => string]>([
    ['token_malformed', 401, () => 'garbage'],
    ['token_too_large', 401, () => 'x'.repeat(17_000)],
    ['token_expired', 401, () => issuer.signAccessToken({ exp: now - 60 })],
    ['token_not_yet_valid', 401, () => issuer.signAccessToken({ nbf: now + 60 })],
    ['token_from_the_future', 401, () => issuer.signAccessToken({ iat: now + 60 })],
    ['audience_mismatch', 401, () => issuer.signAccessToken({ aud: 'https://other' })],
    ['issuer_unknown', 401, () => issuer.signAccessToken({ iss: 'https://other' })],
    ['claim_missing', 401, () => issuer.signAccessToken({ exp: undefined })],
    ['claim_invalid', 401, () => issuer.signAccessToken({ exp: 'soon' })],
    ['token_type_not_accepted', 401, () => issuer.signAccessToken({}, { typ: 'logout+jwt' })],
    ['critical_header_not_supported', 401, () => issuer.signAccessToken({}, { crit: ['x'] })],
    ['algorithm_not_allowed', 401, () => issuer.signAccessToken({}, { alg: 'none' })],
    ['key_unknown', 401, () => issuer.signAccessToken({}, { kid: 'other' })],
    ['signature_invalid', 401, () => `${issuer.signAccessToken().slice(0, -12)}AAAAAAAAAAAA`],
    ['identity_too_large', 431, () => issuer.signAccessToken({ org_id: 'x'.repeat(9000) })],
  ])('with %s: %i', async (code, status, token) => {
    const response = await get('/orders', token())
    expect(response.status).toBe(status)
    expect(await refusal(response)).toBe(code)
  })

  it.each<[string, number, string]>([
    ['credentials_malformed', 400, rawRequest('GET /a', 'Authorization: Bearer')],
    ['credentials_ambiguous', 400, rawRequest('GET /a', 'Authorization: Bearer a', 'Authorization: Bearer b')],
    ['target_invalid', 400, rawRequest('GET /a/../b')],
    ['target_invalid', 400, rawRequest('GET http://127.0.0.1:1/a')],
    ['host_invalid', 400, rawRequest('GET /a', 'Host: other')],
    ['host_invalid', 400, 'GET /a HTTP/1.1\r\n\r\n'],
    ['host_invalid', 400, 'GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n'],
    ['header_invalid', 400, 'GET /a HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n'],
    ['header_invalid', 400, 'GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['header_invalid', 400, rawRequest('POST /a', 'Transfer-Encoding: gzip, chunked')],
    ['header_too_large', 431, rawRequest('GET /a', `X-Big: ${'x'.repeat(33_000)}`)],
    ['expectation_failed', 417, rawRequest('GET /a', 'Expect: something')],
    ['method_not_supported', 501, rawRequest('TRACE /a')],
    ['method_not_supported', 501, rawRequest('CONNECT a:1')],
    ['credentials_missing', 401, rawRequest('GET /a', 'Connection: Upgrade', 'Upgrade: websocket')],
    ['upgrade_not_supported', 501, rawRequest('POST /a', 'Connection: Upgrade', 'Upgrade: websocket')],
    ['upgrade_not_supported', 501, rawRequest('GET /a', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c')],
  ])('with %s: %i (%#)', async (code, status, bytes) => {
    const answer = await sendRaw(sidecar.proxyPort, bytes)
    expect(answer.status).toBe(status)
    expect(answer.text).toContain(`"code":"${code}"`)
    expect(sidecar.lastRequest()).toMatchObject({ code, status })
    expect(upstream.requests).toEqual([])
  })

  it('when HTTP/2 begins on a connection that spoke HTTP/1.1 before', async () => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write(rawRequest('GET /public/a'))
    await vi.waitFor(() => expect(received()).toMatch(/^HTTP\/1.1 200 [^]*\}$/), 5_000)
    socket.write(PREFACE)
    await vi.waitFor(() => expect(received()).toContain('"code":"upgrade_not_supported"'), 5_000)
    expect(received()).toContain('HTTP/1.1 501')
    expect(sidecar.lastRequest()).toMatchObject({ code: 'upgrade_not_supported', status: 501 })
    socket.destroy()
  })

  it('with a token in the query, the body or a cookie alone', async () => {
    const token = issuer.signAccessToken()
    expect(await refusal(await get(`/orders?access_token=${token}`))).toBe('credentials_missing')
    expect(await refusal(await get('/orders', undefined, { headers: { cookie: `access_token=${token}` } }))).toBe(
      'credentials_missing',
    )
    const body = new URLSearchParams({ access_token: token })
    expect(await refusal(await get('/orders', undefined, { method: 'POST', body }))).toBe('credentials_missing')
  })
})

describe('the metrics', () => {
  it('count requests by rule, code and class, and hold nothing a caller chose', async () => {
    await get('/orders', issuer.signAccessToken())
    await get('/no/such/rule')
    await get(`/random-${Math.random()}`, 'garbage')
    const text = await sidecar.metrics()
    expect(text).toMatch(/bearward_requests_total\{rule="default",code="ok",status_class="2xx"\} \d+/)
    expect(text).toMatch(/bearward_requests_total\{rule="default",code="credentials_missing",status_class="4xx"\} \d+/)
    expect(text).toMatch(/bearward_requests_total\{rule="none",code="header_invalid",status_class="4xx"\} \d+/)
    expect(text).toMatch(/bearward_jwks_keys\{issuer="main"\} 1/)
    expect(text).toMatch(/bearward_token_cache_total\{result="hit"\} \d+/)
    expect(text).toMatch(/bearward_ready 1/)
    // The words that explain a metric are ours.
    expect(text.replace(/^# HELP .*$/gm, '')).not.toMatch(/random|other|spoofed/)
  })
})
