import { writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { loadConfigWithPlaces } from '../../src/config/load.ts'
import { endCommands, eventually } from '../cli/command.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { startSidecar, stopSidecars } from '../fakes/sidecar.ts'
import { createSigningKey, goodClaims, ISSUER, signJwt } from '../fakes/signer.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'
import { startServing, type Serving } from './serving.ts'
import { createVolume, type Volume } from './volume.ts'

const RELOADED = 'configuration reloaded'
const NOT_RELOADED = 'the configuration was not reloaded; the one before is used on'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let connections: number
let volume: Volume

beforeAll(async () => (issuer = await startAuthorizationServer()))
beforeEach(async () => {
  connections = 0
  upstream = await startUpstream()
  upstream.onConnection(() => (connections += 1))
  volume = createVolume({ 'bearward.yaml': config(), secret: issuer.clients.web.secret })
})
afterEach(async () => {
  await endCommands()
  await upstream.stop()
  volume.remove()
})
afterAll(() => issuer.stop())

const LISTEN = { proxy: '127.0.0.1:0', ops: '127.0.0.1:0', helper: '127.0.0.1:0' }
const web = () => ({ client_id: issuer.clients.web.id, client_secret: { file: './secret' } })

function settings(): Record<string, unknown> {
  return {
    listen: LISTEN,
    issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
    upstream: upstream.url,
    helper: { clients: { web: web() } },
    rules: [{ name: 'open', prefix: ['/open'], access: 'public' }],
  }
}

function config(changes: Readonly<Record<string, unknown>> = {}): string {
  return stringify({ ...settings(), ...changes })
}

/** The serial number of the certificate that a server shows. */
function serialOf(port: number, ca: string): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca }, () => {
      done(socket.getPeerCertificate().serialNumber)
      socket.destroy()
    })
    socket.once('error', fail)
  })
}

/** Replaces the volume, the secret staying what it is unless given. */
function replace(text: string, files: Readonly<Record<string, string>> = {}): void {
  volume.replace({ 'bearward.yaml': text, secret: issuer.clients.web.secret, ...files })
}

const serve = async (env: Readonly<Record<string, string>> = {}): Promise<Serving> => {
  const serving = await startServing(['--config', volume.path('bearward.yaml')], env)
  await serving.ready()
  return serving
}

const call = (serving: Serving, path: string, token?: string) =>
  fetch(serving.proxy + path, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })

const refresh = (serving: Serving, token: string) =>
  fetch(`${serving.helper}/oauth2/token`, {
    method: 'POST',
    body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token }),
  })

describe('a configuration that changes', () => {
  it('is taken into use when the kubelet replaces the volume, every time', async () => {
    const serving = await serve()
    expect((await call(serving, '/shop')).status).toBe(401)
    for (let i = 1; i <= 4; i += 1) {
      const access = i % 2 === 1 ? 'public' : 'required'
      replace(config({ rules: [{ name: 'shop', prefix: ['/shop'], access }] }))
      await serving.said(RELOADED, i)
      expect((await call(serving, '/shop')).status).toBe(access === 'public' ? 200 : 401)
    }
    expect(await serving.metric('bearward_reloads_total{result="success"}')).toBe(4)
  })

  it('is taken into use when it is written in place', async () => {
    const serving = await serve()
    volume.write('bearward.yaml', config({ rules: [{ name: 'shop', prefix: ['/shop'], access: 'public' }] }))
    await serving.said(RELOADED)
    expect((await call(serving, '/shop')).status).toBe(200)
  })

  it('is loaded again on SIGHUP, changed or not', async () => {
    const serving = await serve()
    process.kill(serving.command.pid, 'SIGHUP')
    await serving.said(RELOADED)
    process.kill(serving.command.pid, 'SIGHUP')
    await serving.said(RELOADED, 2)
    expect((await call(serving, '/open')).status).toBe(200)
  })

  it('without a file is loaded again from the environment on SIGHUP', async () => {
    const serving = await startServing([], {
      BEARWARD_ISSUER: issuer.issuer,
      BEARWARD_AUDIENCE: issuer.audience,
      BEARWARD_UPSTREAM: upstream.url,
      BEARWARD_PROXY_LISTEN: LISTEN.proxy,
      BEARWARD_OPS_LISTEN: LISTEN.ops,
    })
    process.kill(serving.command.pid, 'SIGHUP')
    await serving.said(RELOADED)
  })

  it('also changes what is logged', async () => {
    const serving = await serve()
    await call(serving, '/open')
    await serving.said('request')
    replace(config({ telemetry: { access_log: false } }))
    await serving.said(RELOADED)
    await call(serving, '/open')
    replace(config({ telemetry: { log_level: 'error' } }))
    await eventually(async () => (await serving.metric('bearward_reloads_total{result="success"}')) === 2)
    await call(serving, '/nothing')
    expect(serving.count('request')).toBe(1)
    expect(serving.count(RELOADED)).toBe(1)
  })

  it('reaches the backend in other header fields, for remembered tokens, too', async () => {
    const serving = await serve()
    const token = issuer.signAccessToken()
    const fields = async () => ((await (await call(serving, '/', token)).json()) as { headers: object }).headers
    expect(await fields()).toMatchObject({ 'x-auth-subject': 'user-1' })
    replace(config({ identity: { prefix: 'x-me-', headers: [{ header: 'x-me-org', claim: 'org_id' }] } }))
    await serving.said(RELOADED)
    expect(await fields()).toMatchObject({ 'x-me-subject': 'user-1', 'x-me-org': 'org_1' })
    expect(await fields()).not.toHaveProperty('x-auth-subject')
  })

  it('keeps keys, remembered tokens and connections that it does not concern', async () => {
    const serving = await serve()
    const token = issuer.signAccessToken()
    await call(serving, '/', token)
    const before = { jwks: issuer.requests.jwks, connections }
    for (let i = 1; i <= 3; i += 1) {
      replace(config({ rules: [{ name: `rule-${i}`, prefix: ['/x'] }] }))
      await serving.said(RELOADED, i)
      expect((await call(serving, '/', token)).status).toBe(200)
    }
    expect({ jwks: issuer.requests.jwks, connections }).toEqual(before)
    expect(await serving.metric('bearward_token_cache_total{result="miss"}')).toBe(1)
    expect(await serving.metric('bearward_token_cache_total{result="hit"}')).toBe(3)
  })

  it('keeps the keys of an issuer of which other things are asked, and forgets its tokens', async () => {
    const serving = await serve()
    const token = issuer.signAccessToken()
    expect((await call(serving, '/', token)).status).toBe(200)
    const { jwks } = issuer.requests
    replace(config({ issuers: [{ name: 'main', issuer: issuer.issuer, audience: 'https://another.test' }] }))
    await serving.said(RELOADED)
    expect((await call(serving, '/', token)).status).toBe(401)
    expect((await call(serving, '/', issuer.signAccessToken({ aud: 'https://another.test' }))).status).toBe(200)
    expect(issuer.requests.jwks).toBe(jwks)
  })

  it('keeps the keys of an issuer that is down, when only how long they are used changes', async () => {
    const other = await startAuthorizationServer()
    const issuers = (more: object) => ({
      issuers: [{ name: 'other', issuer: other.issuer, audience: other.audience, ...more }],
      helper: {},
    })
    volume.write('bearward.yaml', config(issuers({})))
    const serving = await serve()
    const token = other.signAccessToken()
    await other.stop()

    replace(config(issuers({ jwks_max_stale: '48h' })))
    await serving.said(RELOADED)
    expect((await call(serving, '/', token)).status).toBe(200)
    expect((await serving.status()).issuers).toMatchObject([{ name: 'other', keys: 1 }])
    // And the other way: keys that must not be used without the issuer are used up when their time is over.
    replace(config(issuers({ jwks_refresh_interval: '30s', jwks_max_stale: '0s' })))
    await serving.said(RELOADED, 2)
    expect((await call(serving, '/', token)).status).toBe(200)
    // Where keys come from is another matter.
    replace(config(issuers({ jwks_uri: new URL('/elsewhere', other.issuer).href })))
    expect(await serving.said(NOT_RELOADED)).toMatchObject({ problems: ['the keys of issuer other cannot be had'] })
    expect((await call(serving, '/', token)).status).toBe(200)
  }, 40_000)

  it('lets requests under way end where they began', async () => {
    const answers: (() => void)[] = []
    const slow = await startUpstream((_request, response) => void answers.push(() => response.end('from the old one')))
    volume.write('bearward.yaml', config({ upstream: slow.url }))
    const serving = await serve()
    const pending = call(serving, '/', issuer.signAccessToken())
    await eventually(() => answers.length === 1)
    replace(config())
    await serving.said(RELOADED)
    expect(await (await call(serving, '/open')).text()).toContain('"url":"/open"')
    answers[0]?.()
    expect(await (await pending).text()).toBe('from the old one')
    // And then the old connections are closed.
    await eventually(() => slow.connections() === 0)
    await slow.stop()
  })

  it('opens and closes the listener of the helper with its clients', async () => {
    volume.write('bearward.yaml', config({ helper: {} }))
    const serving = await serve()
    const port = 20_000 + (serving.proxyPort % 10_000)
    const withHelper = { ...settings(), listen: { ...LISTEN, helper: `127.0.0.1:${port}` } }
    replace(stringify(withHelper))
    await serving.said(RELOADED)
    const helper = { ...serving, helper: `http://127.0.0.1:${port}` }
    expect((await refresh(helper, await issuer.signIn())).status).toBe(200)
    replace(stringify({ ...withHelper, helper: {} }))
    await serving.said(RELOADED, 2)
    await eventually(() =>
      refresh(helper, 'x').then(
        () => false,
        () => true,
      ),
    )
  })
})

describe('a configuration that cannot be used', () => {
  it.each<[string, () => string, string]>([
    ['is not YAML', () => 'issuers: [', '1: '],
    ['is cut off', () => config().slice(0, 40), 'upstream: is missing'],
    ['is empty', () => '', 'empty'],
    ['has an unknown key', () => `${config()}upstraem: x\n`, ': upstraem: is not a setting.'],
    [
      'moves a listener',
      () => config({ listen: { ...LISTEN, proxy: '127.0.0.1:1' } }),
      ': listen.proxy: cannot change',
    ],
    [
      'changes a limit of the listeners',
      () => config({ limits: { header_bytes: '64KiB' } }),
      ': limits.header_bytes: ',
    ],
    [
      'names a secret that is not there',
      () => config({ helper: { clients: { web: { ...web(), client_secret: { file: './none' } } } } }),
      ': helper.clients.web.client_secret: ',
    ],
    [
      'names keys that are not there',
      () => config({ issuers: [{ issuer: 'x', audience: 'y', jwks_file: './none' }], helper: {} }),
      ': issuers[0].jwks_file: names a file that cannot be read',
    ],
  ])('that %s changes nothing, and is reported once with its place', async (_what, text, problem) => {
    const serving = await serve()
    replace(text())
    const { problems, level } = await serving.said(NOT_RELOADED)
    expect(level).toBe('error')
    expect((problems as string[])[0]).toContain(`${volume.path('bearward.yaml')}:`)
    expect((problems as string[]).join('\n')).toContain(problem)
    expect((await call(serving, '/', issuer.signAccessToken())).status).toBe(200)
    expect((await fetch(`${serving.ops}/readyz`)).status).toBe(200)
    expect(await serving.metric('bearward_last_reload_successful')).toBe(0)
    expect((await serving.status()).config.reload).toMatchObject({ successful: false, problems })

    replace(config())
    await serving.said(RELOADED)
    expect(await serving.metric('bearward_last_reload_successful')).toBe(1)
    expect((await serving.status()).config.reload).toMatchObject({ successful: true, problems: [] })
    expect(serving.count(NOT_RELOADED)).toBe(1)
  })

  it('because the keys of its issuer cannot be had waits until they can', async () => {
    const other = await startAuthorizationServer()
    await other.stop()
    const serving = await serve()
    const issuers = [
      { name: 'main', issuer: issuer.issuer, audience: issuer.audience },
      { name: 'other', issuer: other.issuer, audience: issuer.audience },
    ]
    replace(config({ issuers, helper: {} }))
    expect(await serving.said(NOT_RELOADED)).toMatchObject({ problems: ['the keys of issuer other cannot be had'] })
    expect((await call(serving, '/', issuer.signAccessToken())).status).toBe(200)
    expect((await serving.status()).issuers.map(({ name }) => name)).toEqual(['main'])
    await other.restart()
    process.kill(serving.command.pid, 'SIGHUP')
    await serving.said(RELOADED)
    expect((await call(serving, '/', other.signAccessToken())).status).toBe(200)
    expect((await serving.status()).issuers).toMatchObject([{ name: 'main' }, { name: 'other', state: 'fresh' }])
    await other.stop()
  })
})

describe('the files that a configuration names', () => {
  it('a secret that rotates is used from then on; an empty one is reported and not', async () => {
    const { id, secret } = issuer.clients.web
    const serving = await serve()
    expect((await refresh(serving, await issuer.signIn(id))).status).toBe(200)
    const next = 'the-next-secret-of-the-client'
    replace(config(), { secret: next })
    await serving.said(RELOADED)
    // The issuer does not know it yet: the one before is tried, too.
    const before = issuer.requests.token
    expect((await refresh(serving, await issuer.signIn(id))).status).toBe(200)
    expect(issuer.requests.token - before).toBe(2)
    issuer.changeSecret('web', next)
    expect((await refresh(serving, await issuer.signIn(id))).status).toBe(200)
    expect(issuer.requests.token - before).toBe(3)
    issuer.changeSecret('web', secret)
    expect((await refresh(serving, await issuer.signIn(id))).status).toBe(502)
    replace(config(), { secret: '' })
    const { problems } = await serving.said(NOT_RELOADED)
    expect((problems as string[])[0]).toMatch(/bearward\.yaml:\d+: helper\.clients\.web\.client_secret: .* is empty\.$/)
    replace(config(), { secret })
    await serving.said(RELOADED, 2)
    expect((await refresh(serving, await issuer.signIn(id))).status).toBe(200)
    expect(serving.command.stdout()).not.toContain(secret)
  })

  it('a key file that changes is read at once', async () => {
    const [one, two] = [createSigningKey('ES256'), createSigningKey('ES256')]
    const text = config({
      issuers: [{ issuer: ISSUER, audience: 'https://api.test', jwks_file: './jwks' }],
      helper: {},
    })
    replace(text, { jwks: JSON.stringify({ keys: [one.jwk] }) })
    const serving = await serve()
    expect((await call(serving, '/', signJwt(one, goodClaims()))).status).toBe(200)
    expect((await call(serving, '/', signJwt(two, goodClaims()))).status).toBe(401)
    replace(text, { jwks: JSON.stringify({ keys: [two.jwk] }) })
    await serving.said(RELOADED)
    expect((await call(serving, '/', signJwt(two, goodClaims()))).status).toBe(200)
    expect((await call(serving, '/', signJwt(one, goodClaims()))).status).toBe(401)
    // Keys that are no keys replace nothing.
    replace(text, { jwks: '{"keys":[' })
    await serving.said(NOT_RELOADED)
    expect((await call(serving, '/', signJwt(two, goodClaims()))).status).toBe(200)
  })

  it('a certificate that rotates is shown to new callers; one without its key is reported with its place', async () => {
    const authority = createAuthority('the authority of the tests')
    const [one, two] = [authority.issue('localhost'), authority.issue('localhost')]
    const tls = { certificate_file: './cert', key_file: './key' }
    const text = config({ listen: { ...LISTEN, tls } })
    replace(text, { cert: one.cert, key: one.key })
    const serving = await serve()
    const shown = () => serialOf(serving.proxyPort, authority.certificate)
    const [first] = [await shown()]

    replace(text, { cert: two.cert, key: one.key })
    const { problems } = await serving.said(NOT_RELOADED)
    expect((problems as string[])[0]).toMatch(/bearward\.yaml:\d+: listen\.tls: these files make up no TLS context/)
    expect(await shown()).toBe(first)

    replace(text, { cert: two.cert, key: two.key })
    await serving.said(RELOADED)
    await eventually(async () => (await shown()) !== first)
  })

  it('a bundle of authorities that changes counts from the next connection on; what is none replaces nothing', async () => {
    const [one, two] = [createAuthority('one'), createAuthority('two')]
    const backend = createServer(one.issue('localhost'), (_request, response) => {
      // So that the next request has to trust it again.
      response.setHeader('connection', 'close').end('over TLS')
    })
    await new Promise<void>((done) => backend.listen(0, '127.0.0.1', done))
    const { port } = backend.address() as AddressInfo
    const text = config({ upstream: { url: `https://localhost:${port}`, ca_file: './ca' } })
    replace(text, { ca: two.certificate })
    const serving = await serve()
    expect((await call(serving, '/open')).status).toBe(502)
    replace(text, { ca: one.certificate })
    await serving.said(RELOADED)
    expect(await (await call(serving, '/open')).text()).toBe('over TLS')
    const broken = [
      'no certificate',
      one.certificate + two.certificate.slice(0, 300),
      one.certificate.replace(/MII/, 'AAA'),
    ]
    for (const [i, ca] of broken.entries()) {
      replace(text, { ca })
      const { problems } = await serving.said(NOT_RELOADED, i + 1)
      expect((problems as string[])[0]).toContain('upstream.ca_file: names a file without whole certificates')
      expect((await call(serving, '/open')).status).toBe(200)
    }
    backend.close()
  })

  it('a refresh token that is being spent is not spent again by the next configuration', async () => {
    const serving = await serve()
    const token = await issuer.signIn()
    const { token: before } = issuer.requests
    issuer.delayTokens(1_500)
    const first = refresh(serving, token)
    await eventually(() => issuer.requests.token === before + 1)
    replace(config({ rules: [] }))
    await serving.said(RELOADED)
    const second = refresh(serving, token)
    const answers = await Promise.all([first, second].map(async (one) => (await one).json()))
    issuer.delayTokens(0)
    expect(answers[0]).toEqual(answers[1])
    expect(answers[0]).toHaveProperty('refresh_token')
    expect(issuer.requests.token).toBe(before + 1)
  })
})

describe('a hundred changes under load', () => {
  it('fail no request, and leave memory flat', async () => {
    // As in a container: what does not fit into this heap ends the process.
    const serving = await serve({ NODE_OPTIONS: '--max-old-space-size=64 --max-semi-space-size=2' })
    const tokens = [issuer.signAccessToken(), issuer.signAccessToken(), issuer.signAccessToken()]
    const failures: string[] = []
    let answered = 0
    let ended = false
    const caller = async (i: number) => {
      while (!ended) {
        const path = i % 2 === 0 ? '/open/a' : '/'
        const init = i % 3 === 0 ? { method: 'POST', body: 'x'.repeat(2_000) } : {}
        const headers = { authorization: `Bearer ${tokens[i % 3]}` }
        await fetch(serving.proxy + path, { headers, ...init }).then(
          async (response) => {
            await response.arrayBuffer()
            answered += 1
            if (response.status !== 200) failures.push(`${response.status} ${path}`)
          },
          (error: unknown) => failures.push(String(error)),
        )
      }
    }
    const callers = Array.from({ length: 8 }, (_, i) => caller(i))
    let good = 0
    let residentEarly: number | undefined
    for (let i = 0; i < 100; i += 1) {
      const before = await reloadsOf(serving)
      const outcome = change(i)
      if (outcome === 'success') good += 1
      await eventually(async () => (await reloadsOf(serving)) > before)
      if (i === 19) residentEarly = await serving.metric('process_resident_memory_bytes')
    }
    ended = true
    await Promise.all(callers)
    const residentLate = await serving.metric('process_resident_memory_bytes')

    expect(failures).toEqual([])
    expect(answered).toBeGreaterThan(500)
    expect(await serving.metric('bearward_reloads_total{result="success"}')).toBe(good)
    expect(await serving.metric('bearward_reloads_total{result="failure"}')).toBe(100 - good)
    expect(serving.count('unexpected error')).toBe(0)
    // A fifth of a megabyte for each of eighty changes; a runtime that stayed would take more.
    expect(Number(residentLate) - Number(residentEarly)).toBeLessThan(16 * 1024 * 1024)
  }, 120_000)

  it('leave nothing in the heap', async () => {
    const sidecar = await startSidecar({ config: varied(0) })
    await sidecar.ready()
    const token = issuer.signAccessToken()
    const heaps: number[] = []
    for (let i = 1; i <= 150; i += 1) {
      volume.write('bearward.yaml', stringify(varied(i % 40)))
      await sidecar.app.reload(loadConfigWithPlaces({ file: volume.path('bearward.yaml'), env: {} }))
      const response = await fetch(sidecar.proxy, { headers: { authorization: `Bearer ${token}` } })
      expect(await response.json()).toHaveProperty('method')
      upstream.requests.splice(0)
      if (i % 50 === 0) heaps.push(await heapAfterCollection())
    }
    await stopSidecars()
    const [early, , late] = heaps as [number, number, number]
    // Each runtime that stayed would take about 250 KB.
    expect(late - early).toBeLessThan(4 * 1024 * 1024)
  })

  const varied = (i: number) => ({
    ...settings(),
    helper: {},
    drain: { delay: '0s', timeout: '5s' },
    telemetry: { log_level: 'silent' },
    upstream: { url: upstream.url, connections: 100 + i },
    identity: { max_total_bytes: `${i + 1}KiB` },
  })

  async function heapAfterCollection(): Promise<number> {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    // What sockets hold is let go of in the rounds of the event loop after they closed.
    for (let round = 0; round < 3; round += 1) {
      await new Promise((done) => setTimeout(done, 100))
      collect()
    }
    return process.memoryUsage().heapUsed
  }

  const reloadsOf = async (serving: Serving) =>
    ((await serving.metric('bearward_reloads_total{result="success"}')) ?? 0) +
    ((await serving.metric('bearward_reloads_total{result="failure"}')) ?? 0)

  /** Changes the volume in one of several ways, and says how that should end. */
  function change(i: number): 'success' | 'failure' {
    const open = { name: 'open', prefix: ['/open'], access: 'public' }
    const text = config({
      rules: [open, { name: `rule-${i}`, prefix: [`/rule/${i}`] }],
      // Every other one also has another memory of tokens and other connections.
      ...(i % 2 === 0
        ? { upstream: { url: upstream.url, connections: 100 + i }, identity: { max_total_bytes: `${i + 1}KiB` } }
        : {}),
    })
    switch (i % 5) {
      case 1:
        replace(`${text.slice(0, text.length / 2)}\n# ${i}`)
        return 'failure'
      case 3:
        replace(text, { secret: i % 2 === 0 ? `secret-${i}` : '' })
        return i % 2 === 0 ? 'success' : 'failure'
      case 4:
        // The secret of the change before is still there.
        writeFileSync(volume.path('bearward.yaml'), text)
        return i % 2 === 0 ? 'failure' : 'success'
      default:
        replace(text)
        return 'success'
    }
  }
})
