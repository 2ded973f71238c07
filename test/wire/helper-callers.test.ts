import { existsSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/util/clock.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { openRaw, sendRaw } from '../fakes/raw.ts'
import { startScriptedEndpoint, type ScriptedEndpoint } from '../fakes/scripted-endpoint.ts'
import { allOutput, startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import { startSurroundings, stopSurroundings, type Surroundings } from '../fakes/surroundings.ts'
import { requestToken } from '../fakes/token-request.ts'

const SECRET = 'shared+secret: of %20 the backend'
const SUBJECT = 'system:serviceaccount:shop:api'
let issuer: Surroundings['issuer']
let cluster: AuthorizationServer
let scripted: ScriptedEndpoint
let upstream: Surroundings['upstream']
let folder: string

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  cluster = await startAuthorizationServer()
  scripted = await startScriptedEndpoint({ body: { access_token: 'a', token_type: 'Bearer' } })
})
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))
afterAll(async () => {
  await stopSurroundings()
  await Promise.all([cluster.stop(), scripted.stop()])
})

async function start(callers: object, listen: object = {}, clock?: Clock): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    ...(clock && { clock }),
    config: {
      issuers: [
        { name: 'main', issuer: issuer.issuer, audience: issuer.audience },
        { name: 'cluster', issuer: cluster.issuer, audience: 'api-of-the-cluster' },
      ],
      upstream: upstream.url,
      listen,
      helper: {
        callers,
        clients: {
          web: client('web'),
          other: client('other'),
        },
      },
    },
    env: { HELPER_SECRET: SECRET },
  })
  await sidecar.ready()
  return sidecar
}

const client = (client_id: string) => ({
  issuer: 'main',
  client_id,
  client_authentication: 'none',
  grants: ['refresh_token'],
  token_endpoint: `${scripted.url}/token`,
  revocation_endpoint: `${scripted.url}/revoke`,
})

const CALLERS = {
  backend: { shared_secret: { env: 'HELPER_SECRET' }, clients: ['web'] },
  pod: { service_accounts: { issuer: 'cluster', audience: 'bearward-helper', subjects: [SUBJECT] } },
}

const refresh = (
  sidecar: FakeSidecar,
  headers: Record<string, string> = {},
  parameters: Record<string, string> = { client_id: 'web' },
) => requestToken(sidecar.helper, { grant_type: 'refresh_token', refresh_token: 'r', ...parameters }, headers)

const basic = (id: string, secret: string) => ({
  authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
})
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const serviceAccount = (claims: Record<string, unknown> = {}) =>
  bearer(cluster.signAccessToken({ aud: 'bearward-helper', sub: SUBJECT, ...claims }))

describe('a caller is known', () => {
  const encoded = encodeURIComponent(SECRET).replaceAll('%20', '+')
  it.each<[string, () => Record<string, string>, Record<string, string>, string]>([
    ['by a secret as a client secret in the body', () => ({}), { client_id: 'web', client_secret: SECRET }, 'backend'],
    ['by a secret with Basic, as curl sends it', () => basic('web', SECRET), {}, 'backend'],
    ['by a secret with Basic, as libraries send it', () => basic('web', encoded), {}, 'backend'],
    [
      'by a secret with Basic, and the client in the body, too',
      () => basic('web', encoded),
      { client_id: 'web' },
      'backend',
    ],
    ['by the token of a service account', () => serviceAccount(), { client_id: 'web' }, 'pod'],
    ['by the token of a service account, for any client', () => serviceAccount(), { client_id: 'other' }, 'pod'],
  ])('%s', async (_what, headers, parameters, name) => {
    const sidecar = await start(CALLERS)
    expect((await refresh(sidecar, headers(), parameters)).status).toBe(200)
    expect(sidecar.lastExchange()).toMatchObject({ caller: name, code: 'ok' })
    await sidecar.stop()
  })

  it('by the client secret that it always sent, when that is its shared secret', async () => {
    const sidecar = await start(CALLERS)
    const text = JSON.stringify({
      grant_type: 'refresh_token',
      refresh_token: 'r',
      client_id: 'web',
      client_secret: SECRET,
    })
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${sidecar.helper}/oauth/token`, { method: 'POST', body: text, headers })
    expect(response.status).toBe(200)
    expect(scripted.seen.at(-1)?.form.has('client_secret')).toBe(false)
    expect(await sidecar.metrics()).toMatch(/bearward_helper_duration_seconds_count\{grant="refresh_token"\} 1/)
    await sidecar.stop()
  })

  it('by a secret as a bearer token, which is read again when its file changes', async () => {
    const file = join(folder, 'secret')
    writeFileSync(file, 'the-first-secret-of-a-caller\n')
    const sidecar = await start({ backend: { shared_secret: { file } } })
    expect((await refresh(sidecar, bearer('the-first-secret-of-a-caller'))).status).toBe(200)
    writeFileSync(file, 'the-second-secret-of-a-caller')
    expect((await refresh(sidecar, bearer('the-first-secret-of-a-caller'))).status).toBe(401)
    expect((await refresh(sidecar, bearer('the-second-secret-of-a-caller'))).status).toBe(200)
    rmSync(file)
    expect((await refresh(sidecar, bearer('the-second-secret-of-a-caller'))).status).toBe(200)
    await sidecar.stop()
  })
})

describe('a caller that is not known gets nothing, and the issuer is not asked:', () => {
  let sidecar: FakeSidecar
  beforeAll(async () => {
    sidecar = await start(CALLERS)
  })
  const now = () => Math.floor(Date.now() / 1000)

  it.each<[string, () => Record<string, string>, Record<string, string>]>([
    ['no credentials', () => ({}), {}],
    ['another secret', () => bearer(`${SECRET}x`), {}],
    ['no secret with Basic', () => basic('web', ''), {}],
    ['another secret in the body', () => ({}), { client_secret: 'x' }],
    ['the token of another service account', () => serviceAccount({ sub: `${SUBJECT}x` }), {}],
    ['no subject', () => serviceAccount({ sub: undefined }), {}],
    ['a token for the API', () => serviceAccount({ aud: 'api-of-the-cluster' }), {}],
    ['a token that expired', () => serviceAccount({ exp: now() - 60 }), {}],
    ['a token of another issuer', () => bearer(issuer.signAccessToken({ aud: 'bearward-helper', sub: SUBJECT })), {}],
    [
      'a token with a broken signature',
      () => bearer(`${String(serviceAccount()['authorization']).slice(7, -8)}AAAAAAAA`),
      {},
    ],
    ['a token that is huge', () => bearer('x'.repeat(20_000)), {}],
    ['a client secret of the issuer', () => basic('web', issuer.clients.web.secret), {}],
  ])('%s', async (_what, headers, parameters) => {
    const before = scripted.seen.length
    const answer = await refresh(sidecar, headers(), { client_id: 'web', ...parameters })
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client', code: 'caller_unauthenticated' } })
    expect(answer.headers.get('www-authenticate')).toMatch(/^(Bearer|Basic) realm=/)
    expect(scripted.seen.length).toBe(before)
    expect(sidecar.lastExchange()).toMatchObject({ caller: 'none', client: 'none' })
  })

  it('nor does it learn which clients there are', async () => {
    const [known, unknown] = [await refresh(sidecar), await refresh(sidecar, {}, { client_id: 'nobody' })]
    expect(unknown.body).toEqual(known.body)
  })

  it.each<[string, () => Record<string, string>, Record<string, string>, number, string]>([
    ['a client that it may not use', () => basic('other', SECRET), {}, 400, 'caller_not_allowed'],
    ['two clients at once', () => basic('web', SECRET), { client_id: 'other' }, 400, 'request_invalid'],
    ['two secrets at once', () => bearer(SECRET), { client_secret: SECRET }, 400, 'request_invalid'],
    ['an assertion', () => bearer(SECRET), { client_assertion: 'x' }, 400, 'request_invalid'],
    ['another scheme', () => ({ authorization: 'Digest x=y' }), {}, 400, 'request_invalid'],
  ] as const)('a known one that names %s', async (...[, headers, parameters, status, code]) => {
    const before = scripted.seen.length
    expect(await refresh(sidecar, headers(), parameters)).toMatchObject({ status, body: { code } })
    expect(scripted.seen.length).toBe(before)
  })

  it('two Authorization fields are none', async () => {
    const { text } = await sendRaw(
      Number(new URL(sidecar.helper).port),
      'POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
        `Authorization: Bearer x\r\nAuthorization: Bearer y\r\nContent-Length: 3\r\nConnection: close\r\n\r\na=b`,
    )
    expect(text).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('without the keys of its issuer it is told to come again', async () => {
    cluster.fail('jwks', '500')
    const cold = await startSidecar({
      config: {
        issuers: [
          { name: 'main', issuer: issuer.issuer, audience: issuer.audience },
          { name: 'cluster', issuer: cluster.issuer, audience: 'api-of-the-cluster' },
        ],
        upstream: upstream.url,
        helper: { callers: { pod: CALLERS.pod }, clients: { web: client('web') } },
      },
    })
    expect(await refresh(cold, serviceAccount())).toMatchObject({ status: 503, body: { code: 'keys_unavailable' } })
    cluster.fail('jwks', undefined)
    await cold.stop()
  })

  it('and no secret was written down', async () => {
    await sidecar.metrics()
    expect(allOutput.join('')).not.toContain(SECRET)
    expect(allOutput.join('')).not.toContain(encodeURIComponent(SECRET))
  })
})

describe('what a caller sends for itself', () => {
  it('does not travel on to the issuer', async () => {
    const sidecar = await start(CALLERS)
    await refresh(sidecar, { ...serviceAccount(), cookie: 'a=b', 'x-forwarded-for': '10.0.0.1', 'x-other': 'c' })
    const { headers, form } = scripted.seen.at(-1) ?? { headers: {}, form: new URLSearchParams() }
    for (const name of ['authorization', 'cookie', 'origin', 'x-forwarded-for', 'x-other']) {
      expect(headers).not.toHaveProperty(name)
    }
    expect(form.has('client_secret')).toBe(false)
    await sidecar.stop()
  })

  it('says in the metadata how it may show its secret', async () => {
    const sidecar = await start(CALLERS)
    const response = await fetch(`${sidecar.helper}/.well-known/oauth-authorization-server/main`)
    expect(await response.json()).toMatchObject({
      token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    })
    await sidecar.stop()
  })

  it.each<[string, Record<string, string>]>([
    ['Origin', { origin: 'https://evil.example' }],
    ['Origin: null', { origin: 'null' }],
    ['Sec-Fetch-Site', { 'sec-fetch-site': 'same-origin' }],
  ])('with %s is from a browser and refused, whatever else it shows', async (_what, headers) => {
    const sidecar = await start(CALLERS)
    for (const path of [
      '/oauth2/token',
      '/oauth/token',
      '/oauth2/device_authorization',
      '/oauth2/revoke',
      '/oauth/revoke',
    ]) {
      const response = await fetch(sidecar.helper + path, {
        method: 'POST',
        body: new URLSearchParams({ client_id: 'web', token: 't', refresh_token: 'r', grant_type: 'refresh_token' }),
        headers: { ...bearer(SECRET), ...headers },
      })
      expect(response.status).toBe(403)
      expect(response.headers.has('access-control-allow-origin')).toBe(false)
    }
    const preflight = await fetch(`${sidecar.helper}/oauth2/token`, {
      method: 'OPTIONS',
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'POST' },
    })
    expect(preflight.status).toBe(403)
    expect(preflight.headers.has('access-control-allow-origin')).toBe(false)
    await sidecar.stop()
  })

  it('is not awaited for ever, and an upload that is too long ends the connection', async () => {
    const sidecar = await start({})
    const { socket, received } = await openRaw(Number(new URL(sidecar.helper).port))
    socket.write(
      'POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n' +
        `Content-Length: 10000000\r\n\r\n${' '.repeat(70_000)}`,
    )
    await expect.poll(received, { timeout: 5_000 }).toMatch(/^HTTP\/1\.1 413 [\s\S]*connection: close/i)
    socket.destroy()
    await sidecar.stop()
  })

  it('is asked for when it waits to be', async () => {
    const sidecar = await start({})
    const { socket, received } = await openRaw(Number(new URL(sidecar.helper).port))
    const body = 'grant_type=refresh_token&refresh_token=r&client_id=web'
    socket.write(
      'POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
        `Expect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    await expect.poll(received, { timeout: 5_000 }).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\n/)
    socket.write(body)
    await expect.poll(received, { timeout: 5_000 }).toMatch(/HTTP\/1\.1 200 OK/)
    socket.destroy()
    await sidecar.stop()
  })
})

describe('a flood of callers that are not known', () => {
  const exchanges = (one: FakeSidecar, caller: string) =>
    one.logLines().filter((line) => line['msg'] === 'exchange' && line['caller'] === caller)
  const LEFT_OUT = 'lines about callers that are not known were left out'
  const leftOut = (one: FakeSidecar) => one.logLines().filter(({ msg }) => msg === LEFT_OUT)
  const count = async (one: FakeSidecar, client: string, code: string) => {
    const labels = `\\{client="${client}",grant="refresh_token",code="${code}"\\}`
    return Number(new RegExp(`^bearward_helper_exchanges_total${labels} (\\d+)$`, 'm').exec(await one.metrics())?.[1])
  }
  const ATTEMPTS = 150
  const guess = (one: FakeSidecar) =>
    Promise.all(Array.from({ length: ATTEMPTS }, (_, i) => refresh(one, bearer(`wrong-secret-of-nobody-${i}`))))

  it('has a bounded share of the log, is counted in full, and hides no caller that is known', async () => {
    const clock = createFakeClock()
    const sidecar = await start(CALLERS, {}, clock)
    for (const { status } of await guess(sidecar)) expect(status).toBe(401)
    expect((await refresh(sidecar, bearer(SECRET))).status).toBe(200)
    expect(exchanges(sidecar, 'none')).toHaveLength(100)
    expect(exchanges(sidecar, 'backend')).toHaveLength(1)
    expect(await count(sidecar, 'none', 'caller_unauthenticated')).toBe(ATTEMPTS)
    expect(await count(sidecar, 'web', 'ok')).toBe(1)
    expect(leftOut(sidecar)).toEqual([])

    clock.advance(10_000)
    expect(leftOut(sidecar)).toMatchObject([{ level: 'warn', lines: ATTEMPTS - 100 }])
    await guess(sidecar)
    expect(exchanges(sidecar, 'none')).toHaveLength(200)
    clock.advance(5_000)
    await guess(sidecar)
    expect(exchanges(sidecar, 'none')).toHaveLength(250)
    clock.advance(5_000)
    expect(leftOut(sidecar)).toMatchObject([{ lines: ATTEMPTS - 100 }, { lines: 2 * ATTEMPTS - 150 }])
    await sidecar.stop()
  })

  it.each<[string, () => Record<string, string>, Record<string, string>, number]>([
    ['pages in browsers', () => ({ origin: 'https://evil.example' }), {}, 403],
    ['requests that cannot be read', () => ({}), { client_assertion: 'x' }, 400],
    ['tokens of service accounts that are forged', () => bearer('eyJhbGciOiJSUzI1NiJ9.e30.AAAA'), {}, 401],
  ])('is no other when it is one of %s', async (_what, headers, parameters, status) => {
    const sidecar = await start(CALLERS, {}, createFakeClock())
    for (let i = 0; i < 120; i += 1) {
      expect((await refresh(sidecar, headers(), { client_id: 'web', ...parameters })).status).toBe(status)
    }
    expect(exchanges(sidecar, 'none')).toHaveLength(100)
    await sidecar.stop()
  })
})

describe('a Unix socket', () => {
  const post = (socketPath: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const body = 'grant_type=refresh_token&refresh_token=r&client_id=web'
      const headers = { host: 'helper', 'content-type': 'application/x-www-form-urlencoded' }
      const sent = httpRequest({ socketPath, path: '/oauth2/token', method: 'POST', headers }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode))
      })
      sent.on('error', reject).end(body)
    })

  it('is open to its owner and group alone, serves without a caller, and goes with the process', async () => {
    const path = join(folder, 'helper.sock')
    const sidecar = await start({}, { helper: `unix:${path}` })
    expect(lstatSync(path).mode & 0o777).toBe(0o660)
    expect(await post(path)).toBe(200)
    expect(sidecar.lastExchange()).toMatchObject({ caller: 'local', code: 'ok' })
    expect(sidecar.logText()).toContain(`"helper_socket":"${path}"`)
    await sidecar.stop()
    expect(existsSync(path)).toBe(false)
  })

  it('that an ended process left behind is replaced', async () => {
    const path = join(folder, 'helper.sock')
    await leaveSocket(path)
    const sidecar = await start({}, { helper: `unix:${path}` })
    expect(await post(path)).toBe(200)
    await sidecar.stop()
  })

  it('that somebody listens on is not taken away, and neither is a file', async () => {
    const path = join(folder, 'helper.sock')
    const first = await start({}, { helper: `unix:${path}` })
    await expect(start({}, { helper: `unix:${path}` })).rejects.toThrow(/another process listens there/)
    expect(await post(path)).toBe(200)
    await first.stop()
    writeFileSync(path, 'precious')
    await expect(start({}, { helper: `unix:${path}` })).rejects.toThrow(/something else than a socket/)
    await expect(start({}, { helper: `unix:${join(folder, 'none', 'helper.sock')}` })).rejects.toThrow(
      /helper\.sock \(helper\): its folder does not exist or may not/,
    )
  })

  /** A socket file that nobody listens on, as it is left by a process that was killed. */
  async function leaveSocket(path: string): Promise<void> {
    const { fork } = await import('node:child_process')
    const script = join(folder, 'left.mjs')
    writeFileSync(
      script,
      `import { createServer } from 'node:net'
       createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
    )
    await new Promise<void>((resolve) => fork(script).on('exit', () => resolve()))
    expect(lstatSync(path).isSocket()).toBe(true)
    await new Promise<void>((resolve) => connect(path).on('error', () => resolve()))
  }
})
