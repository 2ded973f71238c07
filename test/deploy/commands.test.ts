import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { endCommands, eventually, MAIN, startNode, takePort } from '../cli/command.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { openRaw, rawRequest, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar
let folder: string

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
})
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  sidecar = await startSidecar({ config: settings() })
})
afterEach(async () => {
  await endCommands()
  await stopSidecars()
  rmSync(folder, { recursive: true })
})
afterAll(async () => {
  await issuer.stop()
  await upstream.stop()
})

const settings = () => ({
  issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
  upstream: upstream.url,
  rules: [{ name: 'open', prefix: ['/open'], access: 'public' }],
})

const address = () => new URL(sidecar.ops).host

/** Runs a command against the sidecar and returns its exit code and what it said. */
async function run(argv: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const command = startNode([MAIN, ...argv], { env })
  return [await command.ended, command.stdout() + command.stderr()]
}

describe('bearward probe', () => {
  it('says yes with the answer of the listener', async () => {
    await sidecar.ready()
    for (const word of ['live', 'ready', 'startup']) {
      expect(await run(['probe', word, '--ops', address()])).toEqual([0, 'ok\n'])
    }
  })

  it('says no with what is missing', async () => {
    issuer.fail('jwks', '500')
    const waiting = await startSidecar({ config: settings() })
    const [code, text] = await run(['probe', 'ready', '--ops', new URL(waiting.ops).host])
    issuer.fail('jwks', undefined)
    expect(code).toBe(1)
    expect(text).toBe(`503: not ready: keys of issuer ${new URL(issuer.issuer).host.replace(':', '-')}\n`)
    expect(await run(['probe', 'live', '--ops', new URL(waiting.ops).host])).toEqual([0, 'ok\n'])
  })

  it('finds the listener by the variable, or in the file, whose other faults do not matter', async () => {
    const { port } = new URL(sidecar.ops)
    expect(await run(['probe', 'live'], { BEARWARD_OPS_LISTEN: `:${port}` })).toEqual([0, 'ok\n'])
    const file = join(folder, 'bearward.yaml')
    writeFileSync(file, `listen: { ops: "0.0.0.0:${port}" }\nissuers: nonsense\n`)
    expect(await run(['probe', 'live', '-c', file])).toEqual([0, 'ok\n'])
  })

  it('says that nothing listens, and why it asked there', async () => {
    const { port, release } = await takePort()
    await release()
    const [code, text] = await run(['probe', 'live', '--ops', `127.0.0.1:${port}`])
    expect([code, text]).toEqual([1, `bearward does not answer at 127.0.0.1:${port}: nothing listens there\n`])
    const file = join(folder, 'bearward.yaml')
    writeFileSync(file, `listen: { ops: "127.0.0.1:${port}" }\n`)
    expect((await run(['probe', 'live', '--config', file]))[1]).toBe(text)
    const [none, why] = await run(['probe', 'live', '--config', join(folder, 'none.yaml')])
    // Unless something listens on the default port of this machine.
    if (none !== 0) expect(why).toMatch(/none\.yaml: the configuration cannot be read: there is no such file\.\)$/m)
  })

  it('does not wait for ever', async () => {
    const silent = createTcpServer(() => undefined)
    await new Promise<void>((done) => silent.listen(0, '127.0.0.1', done))
    const { port } = silent.address() as { port: number }
    const [code, text] = await run(['probe', 'live', '--ops', `127.0.0.1:${port}`])
    expect([code, text]).toEqual([1, `bearward does not answer at 127.0.0.1:${port}: no answer within 2 s\n`])
    silent.close()
  })

  it.each([
    [['probe'], 64, /Name one probe: live, ready, startup/],
    [['probe', 'readiness'], 64, /Name one probe/],
    [['probe', 'toString'], 64, /Name one probe/],
    [['probe', 'live', 'ready'], 64, /Name one probe/],
    [['probe', 'live', '--url', 'x'], 64, /'--url'/],
    [['probe', 'live', '--ops', '9090'], 78, /^--ops: must be HOST:PORT/],
    [['probe', 'live', '--ops', ':0'], 78, /port 0/],
    [['drain', 'now'], 64, /"now"/],
  ])('%j exits with %i', async (argv, code, text) => {
    const [exit, said] = await run(argv)
    expect(exit).toBe(code)
    expect(said).toMatch(text)
  })
})

describe('bearward drain', () => {
  it('takes the pod out of service and lets it serve on', async () => {
    await sidecar.ready()
    expect(await run(['drain', '--ops', address()])).toEqual([0, 'draining\n'])
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(503)
    expect((await fetch(`${sidecar.ops}/livez`)).status).toBe(200)
    for (let i = 0; i < 3; i += 1) {
      const { status, text } = await sendRaw(sidecar.proxyPort, rawRequest('GET /open/1'))
      expect(status).toBe(200)
      expect(text.toLowerCase()).toContain('connection: close')
    }
  })

  it('counts as the beginning of drain.delay, however often it is called', async () => {
    for (let i = 0; i < 3; i += 1) {
      await fetch(`${sidecar.ops}/drain`, { method: 'POST', headers: { 'x-bearward-command': 'drain' } })
    }
    expect(sidecar.logLines().filter(({ msg }) => msg === 'draining')).toHaveLength(1)
    const began = performance.now()
    await new Promise((done) => setTimeout(done, 1_000))
    await sidecar.app.drain(1_100)
    // Without the notice it would have waited for 1.1 s after the second that has passed.
    expect(performance.now() - began).toBeLessThan(2_000)
    expect(sidecar.logLines().filter(({ msg }) => msg === 'draining')).toHaveLength(1)
  })

  it.each<[string, RequestInit, number]>([
    ['without the field', { method: 'POST' }, 403],
    ['with another value', { method: 'POST', headers: { 'x-bearward-command': 'stop' } }, 403],
    ['by GET', { headers: { 'x-bearward-command': 'drain' } }, 405],
    ['as a form', { method: 'POST', body: new URLSearchParams({ 'x-bearward-command': 'drain' }) }, 403],
  ])('is refused %s', async (_what, init, status) => {
    await sidecar.ready()
    expect((await fetch(`${sidecar.ops}/drain`, init)).status).toBe(status)
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(200)
  })

  it('is refused from another address', async () => {
    await sidecar.ready()
    const { port } = new URL(sidecar.ops)
    const request = rawRequest('POST /drain', 'x-bearward-command: drain', 'Content-Length: 0')
    const { socket, received } = await openRaw(Number(port), '127.0.0.9')
    socket.write(request)
    await eventually(() => received().includes('\r\n\r\n'))
    socket.destroy()
    expect(received()).toMatch(/^HTTP\/1\.1 403 /)
    expect((await fetch(`${sidecar.ops}/readyz`)).status).toBe(200)
  })

  it('is not answered on the port for traffic', async () => {
    const init = { method: 'POST', headers: { 'x-bearward-command': 'drain' } }
    expect((await fetch(`${sidecar.proxy}/drain`, init)).status).toBe(401)
  })
})

describe('the way around', () => {
  const POD_IP = '127.0.0.2'
  let exposed: Server

  const warnings = (of: FakeSidecar) => of.logLines().filter(({ msg }) => String(msg).includes('gets around bearward'))
  const expose = () => {
    exposed = createServer()
    return new Promise<void>((done) => exposed.listen(upstream.port, POD_IP, done))
  }
  afterEach(() => new Promise((done) => (exposed?.listening ? exposed.close(done) : done(undefined))))

  it('is noticed when the upstream answers on the address of the pod', async () => {
    await expose()
    const watched = await startSidecar({ config: settings(), env: { POD_IP: `::2,${POD_IP}` } })
    await eventually(() => warnings(watched).length === 1)
    expect(warnings(watched)[0]).toMatchObject({ level: 'warn', address: POD_IP })
    expect(await watched.metrics()).toMatch(/^bearward_upstream_exposed 1$/m)
  })

  it('is looked for again, because the app of a pod starts later', async () => {
    const clock = createFakeClock()
    const watched = await startSidecar({ config: settings(), env: { POD_IP }, clock })
    await watched.ready()
    expect(await watched.metrics()).toMatch(/^bearward_upstream_exposed 0$/m)
    await expose()
    await eventually(() => {
      clock.advance(30_000)
      return warnings(watched).length === 1
    })
  })

  it.each([
    ['is not looked for without POD_IP', {}, {}],
    ['is not looked for when POD_IP is no address', { POD_IP: 'localhost' }, {}],
    ['is not what leads to an upstream elsewhere', { POD_IP }, { upstream: 'http://192.0.2.1:3000' }],
  ])('%s', async (_what, env, more) => {
    await expose()
    let connections = 0
    exposed.on('connection', () => (connections += 1))
    const watched = await startSidecar({ config: { ...settings(), ...more }, env })
    await watched.ready()
    await watched.stop()
    expect([connections, warnings(watched)]).toEqual([0, []])
  })
})
