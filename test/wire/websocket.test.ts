import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw, rawRequest, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'

let issuer: AuthorizationServer
let sidecar: FakeSidecar
const http = createServer((_request, response) => void response.writeHead(426, { 'content-length': 4 }).end('none'))
const sockets = new WebSocketServer({ noServer: true })
const seen: Record<string, unknown>[] = []
/** What the backend does with an upgrade: takes it, or something else. */
let refuse: string | undefined

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  http.on('upgrade', (request, socket, head) => {
    seen.push(request.headers)
    if (refuse !== undefined) return void socket.end(refuse)
    sockets.handleUpgrade(request, socket, head, (socket_) => {
      socket_.on('message', (data, isBinary) => socket_.send(data, { binary: isBinary }))
      socket_.on('error', () => undefined)
    })
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
})
afterEach(async () => {
  refuse = undefined
  seen.splice(0)
  await stopSidecars()
})
afterAll(async () => {
  await issuer.stop()
  for (const client of sockets.clients) client.terminate()
  http.close()
  http.closeAllConnections()
})

async function start(more: Record<string, unknown> = {}): Promise<void> {
  sidecar = await startSidecar({
    config: {
      issuers: [{ issuer: issuer.issuer, audience: issuer.audience, clock_tolerance: '0s' }],
      upstream: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
      rules: [{ name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } }],
      ...more,
    },
  })
  await sidecar.ready()
}

interface Client {
  readonly socket: WebSocket
  readonly opened: Promise<number>
  readonly closed: Promise<number>
}

/** `opened` resolves to 101, or to the status of the refusal. */
function open(
  path = '/ws',
  headers: Record<string, string> = { authorization: `Bearer ${issuer.signAccessToken()}` },
): Client {
  const socket = new WebSocket(`ws://127.0.0.1:${sidecar.proxyPort}${path}`, { headers })
  const opened = new Promise<number>((resolve) => {
    socket.on('open', () => resolve(101))
    socket.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0))
    socket.on('error', () => undefined)
  })
  return { socket, opened, closed: new Promise((resolve) => socket.on('close', resolve)) }
}

function echo(socket: WebSocket, data: Buffer): Promise<Buffer> {
  return new Promise((resolve) => {
    socket.once('message', (answer) => resolve(answer as Buffer))
    socket.send(data)
  })
}

describe('a WebSocket', () => {
  it('is opened under the gate, carries frames both ways, and is logged once when it ends', async () => {
    await start()
    const { socket, opened, closed } = open('/ws', {
      authorization: `Bearer ${issuer.signAccessToken({ sub: 'alice' })}`,
      'x-auth-subject': 'mallory',
    })
    expect(await opened).toBe(101)
    expect(seen[0]).toMatchObject({ 'x-auth-subject': 'alice', upgrade: 'websocket', connection: 'Upgrade' })
    expect(seen[0]).not.toHaveProperty('authorization')
    for (const size of [0, 1, 125, 126, 65_535, 65_536, 1_000_000]) {
      const data = Buffer.alloc(size, 'x')
      expect((await echo(socket, data)).equals(data)).toBe(true)
    }
    socket.close(1000)
    expect(await closed).toBe(1000)
    await expect.poll(() => sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 101, path: '/ws' })
    expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/)
  })

  it.each<[string, string, Record<string, string> | undefined, number]>([
    ['without a token', '/ws', {}, 401],
    ['with garbage', '/ws', { authorization: 'Bearer x' }, 401],
    ['with a scope too few', '/admin/ws', undefined, 403],
    ['with a token in the query', '/ws?access_token=x', {}, 401],
  ])('%s is refused, and the backend sees nothing', async (_what, path, headers, status) => {
    await start()
    expect(await open(path, headers).opened).toBe(status)
    expect(seen).toEqual([])
  })

  it.each([
    ['another protocol', ['Connection: Upgrade', 'Upgrade: h2c']],
    ['two protocols', ['Connection: Upgrade', 'Upgrade: websocket, h2c']],
    ['two fields', ['Connection: Upgrade', 'Upgrade: websocket', 'Upgrade: h2c']],
  ])('%s is refused', async (_what, fields) => {
    await start()
    const token = `Authorization: Bearer ${issuer.signAccessToken()}`
    const { text } = await sendRaw(sidecar.proxyPort, rawRequest('GET /ws', token, ...fields))
    expect(text).toMatch(/^HTTP\/1\.1 501 [\s\S]*upgrade_not_supported/)
    expect(seen).toEqual([])
  })

  it('is refused when they are turned off', async () => {
    await start({ websocket: { enabled: false } })
    expect(await open().opened).toBe(501)
  })

  it('that the backend refuses: its answer is passed on', async () => {
    await start()
    refuse = 'HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: not you\r\n\r\nno'
    const { text } = await sendRaw(
      sidecar.proxyPort,
      rawRequest(
        'GET /ws',
        `Authorization: Bearer ${issuer.signAccessToken()}`,
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        'Sec-WebSocket-Version: 13',
      ),
    )
    expect(text).toMatch(/^HTTP\/1\.1 403 [\s\S]*X-Why: not you[\s\S]*no$/)
    expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 403 })
  })

  it.each([
    [
      'switches to something else',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
      502,
      'upstream_invalid_response',
    ],
    ['closes', '', 502, 'upstream_reset'],
  ])('where the backend %s: it is refused', async (_what, answer, status, code) => {
    await start()
    refuse = answer
    expect(await open().opened).toBe(status)
    expect(sidecar.lastRequest()).toMatchObject({ code })
  })

  it('ends with the token that opened it', async () => {
    await start()
    const exp = Math.floor(Date.now() / 1000) + 2
    const { opened, closed } = open('/ws', { authorization: `Bearer ${issuer.signAccessToken({ exp })}` })
    expect(await opened).toBe(101)
    expect(await closed).toBe(1008)
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
  })

  it('outlives it when told so', async () => {
    await start({ websocket: { close_at_token_expiry: false } })
    const exp = Math.floor(Date.now() / 1000) + 2
    const { socket, opened } = open('/ws', { authorization: `Bearer ${issuer.signAccessToken({ exp })}` })
    expect(await opened).toBe(101)
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    expect((await echo(socket, Buffer.from('still here'))).toString()).toBe('still here')
    socket.terminate()
  })

  it('is told when the server goes away, which then stops at once', async () => {
    await start({ drain: { timeout: '30s' } })
    const { opened, closed } = open()
    expect(await opened).toBe(101)
    await sidecar.app.drain(0)
    expect(await closed).toBe(1001)
  })

  it('whose caller or backend breaks leaves nothing behind', async () => {
    await start()
    const first = open()
    expect(await first.opened).toBe(101)
    first.socket.terminate()
    await expect.poll(() => sockets.clients.size).toBe(0)
    const second = open()
    expect(await second.opened).toBe(101)
    for (const client of sockets.clients) client.terminate()
    expect(await second.closed).toBe(1006)
    await expect.poll(() => sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/)
  })

  it('whose first frame comes with the request is not lost', async () => {
    await start()
    const { socket, received } = await openRaw(sidecar.proxyPort)
    const masked = Buffer.from([0x81, 0x82, 1, 2, 3, 4, 'h'.charCodeAt(0) ^ 1, 'i'.charCodeAt(0) ^ 2])
    const head = rawRequest(
      'GET /ws',
      `Authorization: Bearer ${issuer.signAccessToken()}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Version: 13',
    )
    socket.write(Buffer.concat([Buffer.from(head), masked]))
    await expect.poll(received).toMatch(/101 Switching Protocols[\s\S]*\x81\x02hi$/)
    socket.destroy()
  })
})
