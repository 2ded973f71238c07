import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { rawRequest, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const APP = 'https://app.example.com'
let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
})
afterEach(async () => {
  upstream.requests.splice(0)
  await stopSidecars()
})
afterAll(async () => {
  await issuer.stop()
  await upstream.stop()
})

async function start(cors: Record<string, unknown> = {}): Promise<void> {
  sidecar = await startSidecar({
    config: { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream: upstream.url, cors },
  })
  await sidecar.ready()
}

const options = (...fields: string[]) => sendRaw(sidecar.proxyPort, rawRequest('OPTIONS /a', ...fields))
const PREFLIGHT = [`Origin: ${APP}`, 'Access-Control-Request-Method: PUT']

describe('a preflight', () => {
  it('is the backend’s to answer, without an identity', async () => {
    await start()
    expect((await options(...PREFLIGHT, 'X-Auth-Subject: mallory')).status).toBe(200)
    expect(Object.keys(upstream.requests[0]?.headers ?? {}).filter((name) => name.startsWith('x-auth-'))).toEqual([])
    expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', method: 'OPTIONS' })
  })

  it.each([
    ['OPTIONS alone', []],
    ['without Origin', ['Access-Control-Request-Method: PUT']],
    ['without the method', [`Origin: ${APP}`]],
    ['with two origins', [...PREFLIGHT, 'Origin: https://evil.example']],
    ['with a body', [...PREFLIGHT, 'Content-Length: 5', '', 'hello']],
    ['with a body in chunks', [...PREFLIGHT, 'Transfer-Encoding: chunked', '', '0']],
    ['for another method to some backends', [...PREFLIGHT, 'X-HTTP-Method-Override: GET']],
    ['the same in CGI', [...PREFLIGHT, 'X_HTTP_Method_Override: GET']],
  ])('is not what is %s', async (_what, fields) => {
    await start()
    expect((await options(...fields)).status).toBe(401)
    expect(upstream.requests).toEqual([])
  })

  it('of the server as a whole is refused, with a token or without: no rule is about it', async () => {
    await start()
    const token = `Authorization: Bearer ${issuer.signAccessToken()}`
    for (const fields of [[], PREFLIGHT, [token], [token, ...PREFLIGHT]]) {
      const { status, text } = await sendRaw(sidecar.proxyPort, rawRequest('OPTIONS *', ...fields))
      expect([status, text]).toEqual([400, expect.stringContaining('"target_invalid"')])
    }
    expect(upstream.requests).toEqual([])
  })

  it('with a bad token is refused all the same', async () => {
    await start()
    expect((await options(...PREFLIGHT, 'Authorization: Bearer x')).status).toBe(401)
  })

  it('needs a token when told so; a GET with its fields always does', async () => {
    await start({ preflight: 'token' })
    expect((await options(...PREFLIGHT)).status).toBe(401)
    await stopSidecars()
    await start()
    expect((await sendRaw(sidecar.proxyPort, rawRequest('GET /a', ...PREFLIGHT))).status).toBe(401)
  })
})

describe('a refusal', () => {
  const refuse = (origin?: string) => fetch(`${sidecar.proxy}/a`, { headers: origin === undefined ? {} : { origin } })

  it('can be read by pages of the origins named, and of no others', async () => {
    await start({ origins: [APP] })
    const readable = await refuse(APP)
    expect(readable.status).toBe(401)
    expect(readable.headers.get('access-control-allow-origin')).toBe(APP)
    expect(readable.headers.get('access-control-expose-headers')).toContain('WWW-Authenticate')
    for (const origin of ['https://evil.example', 'null', `${APP}.evil.example`, `${APP}:8443`, undefined]) {
      const response = await refuse(origin)
      expect(response.headers.has('access-control-allow-origin')).toBe(false)
      expect(response.headers.get('vary')).toBe('Origin')
    }
  })

  it('says nothing of origins when none are named', async () => {
    await start()
    expect((await refuse(APP)).headers.has('access-control-allow-origin')).toBe(false)
  })
})
