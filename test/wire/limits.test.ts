import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw, rawRequest, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream, type Handler } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let handler: Handler

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((...parts) => handler(...parts))
})
afterEach(() => stopSidecars())
afterAll(async () => {
  await issuer.stop()
  await upstream.stop()
})

async function start(limits: Record<string, unknown>): Promise<FakeSidecar> {
  const config = { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream: upstream.url, limits }
  const sidecar = await startSidecar({ config })
  await sidecar.ready()
  return sidecar
}

const call = (sidecar: FakeSidecar) =>
  fetch(`${sidecar.proxy}/a`, { headers: { authorization: `Bearer ${issuer.signAccessToken()}` } })
const ok: Handler = (_request, response) => void response.end('ok')

describe('past the limit', () => {
  it('on requests in flight: 503 with Retry-After, and room again afterwards', async () => {
    const finish: (() => void)[] = []
    handler = (_request, response) => void finish.push(() => response.end('ok'))
    const sidecar = await start({ requests_in_flight: 2 })
    const first = [call(sidecar), call(sidecar)]
    await expect.poll(() => finish.length).toBe(2)
    const refused = await call(sidecar)
    expect(refused.status).toBe(503)
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(await refused.json()).toMatchObject({ code: 'overloaded' })
    for (const one of finish) one()
    expect((await Promise.all(first)).map(({ status }) => status)).toEqual([200, 200])
    handler = ok
    expect((await call(sidecar)).status).toBe(200)
  })

  it('on connections: further ones are closed and counted', async () => {
    handler = ok
    const sidecar = await start({ connections: 2 })
    const open = [await openRaw(sidecar.proxyPort), await openRaw(sidecar.proxyPort)]
    const closed = new Promise((resolve) =>
      connect(sidecar.proxyPort, '127.0.0.1').on('error', resolve).on('close', resolve),
    )
    await closed
    expect(await sidecar.metrics()).toMatch(/bearward_connections_dropped_total 1/)
    for (const { socket } of open) socket.destroy()
  })

  it('on header fields: 431, and none of them vanishes unseen below it', async () => {
    handler = (request, response) => void response.end(String(request.rawHeaders.length / 2))
    const sidecar = await start({ header_count: 60 })
    const fields = (count: number) => Array.from({ length: count }, (_, i) => `X-${i}: 1`)
    const token = `Authorization: Bearer ${issuer.signAccessToken()}`
    const { text } = await sendRaw(sidecar.proxyPort, rawRequest('GET /a', token, ...fields(58)), (all) =>
      /\r\n\r\n.*\d/s.test(all),
    )
    expect(text).toMatch(/^HTTP\/1\.1 200 /)
    expect(upstream.requests.at(-1)?.headers).toHaveProperty('x-57')
    expect((await sendRaw(sidecar.proxyPort, rawRequest('GET /a', token, ...fields(59)))).text).toContain(
      'header_too_large',
    )
  })

  it('on the time for a header: 408', async () => {
    const sidecar = await start({ headers_timeout: '1s' })
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write('GET /a HTTP/1.1\r\nHost: a\r\n')
    await expect.poll(received, { timeout: 10_000 }).toMatch(/^HTTP\/1\.1 408 [\s\S]*request_timeout/)
  })

  it('on the silence within a body: 408, the upstream is told, the connection closed', async () => {
    let aborted = false
    handler = (request) => void request.on('error', () => (aborted = true)).resume()
    const sidecar = await start({ body_timeout: '1s' })
    const { socket, received } = await openRaw(sidecar.proxyPort)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.write(
      `POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${issuer.signAccessToken()}\r\nContent-Length: 100\r\n\r\npart`,
    )
    await expect.poll(received, { timeout: 10_000 }).toMatch(/^HTTP\/1\.1 408 [\s\S]*request_timeout/)
    await closed
    expect(aborted).toBe(true)
    expect(sidecar.lastRequest()).toMatchObject({ code: 'request_timeout', status: 408 })
  })
})

describe('the time for a request in all', () => {
  const startLimited = async (listen: Record<string, unknown> = {}) => {
    const config = {
      issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
      upstream: { url: upstream.url, total_timeout: '1s', ...listen },
    }
    const sidecar = await startSidecar({ config })
    await sidecar.ready()
    return sidecar
  }
  const trickle: Handler = (_request, response) => {
    const timer = setInterval(() => response.write('more '), 100)
    response.on('close', () => clearInterval(timer))
  }

  it('ends in 504 while there is no response, and the upstream is told', async () => {
    let left = false
    handler = (_request, response) => void response.on('close', () => (left = true))
    const sidecar = await startLimited()
    const response = await call(sidecar)
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ code: 'upstream_timeout' })
    await expect.poll(() => left).toBe(true)
    expect(sidecar.lastRequest()).toMatchObject({
      code: 'upstream_timeout',
      status: 504,
      detail: { limit: 'total_timeout' },
    })
    handler = ok
    expect((await call(sidecar)).status).toBe(200)
  })

  it('ends in a cut response, however lively that is, and counts once', async () => {
    handler = trickle
    const sidecar = await startLimited()
    const response = await call(sidecar)
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow()
    await expect.poll(() => sidecar.lastRequest()).toMatchObject({ code: 'upstream_timeout' })
    const metrics = await sidecar.metrics()
    expect(metrics).toMatch(/bearward_requests_total\{rule="default",code="upstream_timeout",status_class="2xx"\} 1/)
    expect(metrics).not.toContain('code="caller_gone"')
    expect(metrics).toMatch(/bearward_requests_in_flight 0/)
  })

  it('ends an upload that goes on and on', async () => {
    handler = (request) => void request.on('error', () => undefined).resume()
    const sidecar = await startLimited()
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.on('error', () => undefined)
    socket.write(
      `POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${issuer.signAccessToken()}\r\nContent-Length: 100000\r\n\r\n`,
    )
    const timer = setInterval(() => socket.write('more'), 100)
    await expect.poll(received, { timeout: 10_000 }).toMatch(/^HTTP\/1\.1 504 [\s\S]*upstream_timeout/)
    clearInterval(timer)
    socket.destroy()
  })

  it('is none for a request that ended before', async () => {
    handler = ok
    const sidecar = await startLimited()
    expect((await call(sidecar)).status).toBe(200)
    await new Promise((resolve) => setTimeout(resolve, 1_300))
    expect((await call(sidecar)).status).toBe(200)
    expect(await sidecar.metrics()).not.toContain('code="upstream_timeout"')
  })

  it('includes the wait for a connection to the upstream', async () => {
    handler = trickle
    const sidecar = await startLimited({ connections: 1 })
    const [first, second] = await Promise.all([call(sidecar), call(sidecar)])
    expect([first.status, second.status].sort()).toEqual([200, 504])
    await expect(Promise.all([first.text(), second.text()])).rejects.toThrow()
  })
})

/** Which timer the system runs for a connection, as `/proc/net/tcp` tells: `02` is that of keep-alive. */
function timerOf(localPort: number, remotePort: number): string | undefined {
  const hex = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n')
  const fields = rows.map((row) => row.trim().split(/\s+/))
  return fields.find(([, local, remote]) => local?.endsWith(hex(localPort)) && remote?.endsWith(hex(remotePort)))?.[5]
}

describe.skipIf(process.platform !== 'linux')('a connection on which nothing comes for long', () => {
  it('is one of a peer that the system asks now and then whether it is still there', async () => {
    handler = ok
    const sidecar = await start({})
    expect((await call(sidecar)).status).toBe(200)
    const { socket } = await openRaw(sidecar.proxyPort)
    await expect.poll(() => timerOf(sidecar.proxyPort, socket.localPort ?? 0)).toMatch(/^02:/)
    // So are those to the upstream.
    const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n')
    const toUpstream = rows
      .map((row) => row.trim().split(/\s+/))
      .filter(([, local, remote, state]) => state === '01' && remote === addressOf(upstream.port) && local !== remote)
    expect(toUpstream.map((fields) => fields[5]?.slice(0, 2))).toEqual(['02'])
    socket.destroy()
  })
})

/** 127.0.0.1 and a port, as `/proc/net/tcp` writes them. */
function addressOf(port: number): string {
  return `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`
}
