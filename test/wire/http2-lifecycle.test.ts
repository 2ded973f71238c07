import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { startBalancer } from '../fakes/balancer.ts'
import { openCaller, type Http2Answer } from '../fakes/http2-caller.ts'
import { codeOf, data, FLAG, FRAME, headers, openHttp2, request } from '../fakes/http2-raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const authority = createAuthority('ours')
const ca = authority.certificate
const tls = { certificate_file: join(folder, 'cert.pem'), key_file: join(folder, 'key.pem') }
/** Answers that the backend has not given yet. */
const held: (() => void)[] = []

beforeAll(async () => {
  const { cert, key } = authority.issue('api.test', '127.0.0.1')
  writeFileSync(tls.certificate_file, cert)
  writeFileSync(tls.key_file, key)
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((_request, response, recorded) => {
    if (recorded.url.startsWith('/slow')) held.push(() => response.end(Buffer.alloc(300_000, 'x')))
    else response.end('ok')
  })
})
afterEach(() => {
  upstream.requests.splice(0)
  held.splice(0)
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

async function start(more: Readonly<Record<string, unknown>> = {}): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      rules: [{ name: 'all', prefix: ['/'], access: 'public', insecure_catch_all: true }],
      ...more,
    },
  })
  await sidecar.ready()
  return sidecar
}

const isOk = ({ status, body, rstCode }: Http2Answer) => [status, body.toString(), rstCode].join() === '200,ok,0'

describe.each([
  ['in the clear', {}, undefined],
  ['over TLS', { listen: { tls } }, ca],
])('a sidecar that stops, %s', (_name, more, trusted) => {
  it('asks callers to go elsewhere, serves what comes meanwhile, and lets requests in flight finish', async () => {
    const sidecar = await start(more)
    const caller = await openCaller(sidecar.proxyPort, trusted)
    const goaway: number[][] = []
    caller.session.on('goaway', (code, last) => void goaway.push([code, last ?? -1]))
    const slow = [caller.get('/slow/1'), caller.get('/slow/2')]
    await vi.waitFor(() => expect(held).toHaveLength(2), 5_000)
    const raw = await openHttp2(sidecar.proxyPort, true, trusted)
    raw.send(headers(1, request('/before')))
    await raw.wait(({ type, id }) => type === FRAME.data && id === 1)

    const drained = sidecar.app.drain(1_500)
    // The announcement leaves every stream its chance.
    const notice = await raw.wait(({ type }) => type === FRAME.goaway)
    expect([codeOf(notice!), notice!.payload.readUInt32BE(0)]).toEqual([0, 2 ** 31 - 1])
    await vi.waitFor(() => expect(goaway[0]).toEqual([0, 2 ** 31 - 1]), 5_000)
    raw.send(headers(3, request('/on-its-way')))
    expect(await raw.wait(({ type, id }) => type === FRAME.data && id === 3)).toBeDefined()
    // Whoever has not heard of it and connects anew is served, too, and told then.
    const late = await openCaller(sidecar.proxyPort, trusted)
    const told = new Promise((resolve) => late.session.once('goaway', resolve))
    expect(isOk(await late.get('/late'))).toBe(true)
    await told

    // The time for late ones over, the connections close, but for those with requests in flight.
    const goaways = () => raw.frames.filter(({ type }) => type === FRAME.goaway)
    await vi.waitFor(() => expect(goaways().length).toBeGreaterThan(1), 5_000)
    const last = goaways()[1]
    expect([codeOf(last!), last!.payload.readUInt32BE(0)]).toEqual([0, 3])
    for (const answer of held.splice(0)) answer()
    for (const answer of await Promise.all(slow)) {
      expect(answer).toMatchObject({ status: 200, rstCode: 0 })
      expect(answer.body).toHaveLength(300_000)
    }
    await drained
    expect(sidecar.logLines().find(({ msg }) => msg === 'stopped')).toMatchObject({ requests_cut: 0 })
    raw.close()
    caller.close()
    late.close()
  })

  it('cuts what does not finish in time, and says how much that was', async () => {
    const sidecar = await start({ ...more, drain: { timeout: '1s' } })
    const caller = await openCaller(sidecar.proxyPort, trusted)
    const slow = [caller.get('/slow/1'), caller.get('/slow/2'), caller.get('/slow/3')]
    await vi.waitFor(() => expect(held).toHaveLength(3), 5_000)
    await sidecar.stop()
    expect((await Promise.all(slow)).map(({ status }) => status)).toEqual([0, 0, 0])
    expect(sidecar.logLines().find(({ msg }) => msg === 'stopped')).toMatchObject({ requests_cut: 3 })
    await vi.waitFor(() => expect(upstream.requests.map(({ state }) => state)).not.toContain('open'), 5_000)
    caller.close()
  })

  it('does not wait for peers that keep a connection on which all is said', async () => {
    const sidecar = await start({ ...more, drain: { timeout: '60s' } })
    const raw = await openHttp2(sidecar.proxyPort, true, trusted)
    raw.socket.allowHalfOpen = true
    raw.send(headers(1, request('/')))
    await raw.wait(({ type, id }) => type === FRAME.data && id === 1)
    await sidecar.stop()
    raw.close()
  })

  it('loses no request of callers that follow a GOAWAY to the next sidecar', async () => {
    const balancer = await startBalancer()
    const add = async (sidecar: FakeSidecar) => {
      const target = { port: sidecar.proxyPort, ops: sidecar.ops }
      await balancer.add(target)
      return { sidecar, target }
    }
    let current = await add(await start(more))
    const port = Number(new URL(balancer.origin).port)
    let stop = false
    const failed: string[] = []
    let [served, opened] = [0, 0]
    // Nothing but the GOAWAY tells that it is time to leave; several at a time, so that some are always on their way.
    const work = async () => {
      while (!stop) {
        const raw = await openHttp2(port, true, trusted)
        opened += 1
        let id = -1
        const ask = async () => {
          while (!stop && !raw.frames.some(({ type }) => type === FRAME.goaway)) {
            const mine = (id += 2)
            raw.send(headers(mine, request('/orders', [], 'POST'), false), data(mine, 'x'.repeat(1_000)))
            const last = await raw.wait(({ type, id: on }) => on === mine && type === FRAME.data)
            if (last?.payload.toString() === 'ok') served += 1
            else failed.push(`${mine} of ${raw.frames.filter(({ type }) => type === FRAME.goaway).length} GOAWAY`)
          }
        }
        await Promise.all(Array.from({ length: 4 }, ask))
        raw.close()
      }
    }
    const workers = Array.from({ length: 5 }, work)
    for (let round = 0; round < 5; round += 1) {
      const before = served
      await vi.waitFor(() => expect(served).toBeGreaterThan(before + 100), 10_000)
      const old = current
      current = await add(await start(more))
      await old.sidecar.app.drain(500)
      balancer.remove(old.target)
    }
    stop = true
    await Promise.all(workers)
    balancer.stop()
    expect(failed).toEqual([])
    expect(balancer.failed()).toBe(0)
    expect(opened).toBeGreaterThanOrEqual(5 * 6)
  }, 60_000)
})

describe('a connection without requests', () => {
  it('is closed after the keep-alive timeout, with a GOAWAY', async () => {
    const sidecar = await start({ limits: { keep_alive_timeout: '1s' } })
    const raw = await openHttp2(sidecar.proxyPort)
    raw.send(headers(1, request('/')))
    await raw.wait(({ type, id }) => type === FRAME.data && id === 1)
    const goaway = await raw.wait(({ type }) => type === FRAME.goaway)
    expect(codeOf(goaway!)).toBe(0)
    expect(await raw.ended()).toBe(true)
  })

  it('is not closed while a request is silent', async () => {
    const sidecar = await start({ limits: { keep_alive_timeout: '1s' } })
    const caller = await openCaller(sidecar.proxyPort)
    const slow = caller.get('/slow')
    await vi.waitFor(() => expect(held).toHaveLength(1), 5_000)
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    held.pop()?.()
    expect(await slow).toMatchObject({ status: 200, rstCode: 0 })
    // And is closed when that is over.
    await new Promise((resolve) => caller.session.once('close', resolve))
  })

  it('has acknowledged the settings and answers pings', async () => {
    const sidecar = await start()
    const raw = await openHttp2(sidecar.proxyPort)
    expect(await raw.wait(({ type, flags }) => type === FRAME.settings && flags === FLAG.ack)).toBeDefined()
    const settings = raw.frames.find(({ type, flags }) => type === FRAME.settings && flags === 0)
    // SETTINGS_MAX_CONCURRENT_STREAMS and no SETTINGS_ENABLE_CONNECT_PROTOCOL.
    const entries = Array.from({ length: settings!.payload.length / 6 }, (_, i) => [
      settings!.payload.readUInt16BE(i * 6),
      settings!.payload.readUInt32BE(i * 6 + 2),
    ])
    expect(entries).toContainEqual([3, 256])
    expect(entries.filter(([name, value]) => name === 8 && value === 1)).toEqual([])
    raw.close()
  })
})
