import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { startTarget, type Target } from '../fakes/attack.ts'
import { openRaw, rawRequest, sendRaw } from '../fakes/raw.ts'
import { ok } from '../fakes/recorder.ts'
import { startSidecar, stopSidecars } from '../fakes/sidecar.ts'

/** Callers that are slow, and those that send too much: what they cost, and that each is answered, counted and logged once. */
let target: Target
const open: { destroy(): unknown }[] = []

afterEach(async () => {
  for (const one of open.splice(0)) one.destroy()
  expect(target.sidecar.logText()).not.toContain('unexpected error')
  await target.stop()
  await stopSidecars()
})

async function start(limits: Record<string, unknown> = {}): Promise<void> {
  target = await startTarget({ limits })
}

const counted = async (code: string) => {
  const lines = (await target.sidecar.metrics()).split('\n').filter((line) => line.includes(`code="${code}"`))
  return lines
    .filter((line) => line.startsWith('bearward_requests_total'))
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0)
}
const inFlight = async () => Number(/^bearward_requests_in_flight (\d+)$/m.exec(await target.sidecar.metrics())?.[1])
const logged = (code: string) =>
  target.sidecar.logLines().filter((line) => line['msg'] === 'request' && line['code'] === code)
/** Answered, counted and logged, once. */
async function expectOnce(code: string): Promise<void> {
  await expect.poll(() => logged(code).length).toBe(1)
  expect(await counted(code)).toBe(1)
}
async function openConnection() {
  const connection = await openRaw(target.sidecar.proxyPort)
  open.push(connection.socket)
  const ended = new Promise<void>((resolve) => connection.socket.once('end', resolve).once('close', () => resolve()))
  return { ...connection, ended }
}
/** Writes a part every so often until the connection ends. */
function trickle(socket: Socket, parts: string, everyMs: number): void {
  let at = 0
  const timer = setInterval(() => {
    if (socket.destroyed || at === parts.length) return clearInterval(timer)
    socket.write(parts[at++] as string)
  }, everyMs)
  socket.on('close', () => clearInterval(timer))
}

describe('a header that comes slowly', () => {
  it.each([
    ['not at all', ''],
    ['in bytes that never end', 'GET /public/a HTTP/1.1\r\nHost: api.test\r\nX: '.padEnd(4_000, 'a')],
    ['as a preface of HTTP/2 that never ends', 'PRI * HTTP/2.0\r\n\r\nSM'],
  ])('%s: 408', async (_what, bytes) => {
    await start({ headers_timeout: '1s' })
    const { socket, received, ended } = await openConnection()
    trickle(socket, bytes, 50)
    await ended
    expect(received()).toMatch(/^HTTP\/1\.1 408 [\s\S]*request_timeout/)
    await expectOnce('request_timeout')
    expect(target.backend.requests).toEqual([])
  })

  it('behind an answered request: 408', async () => {
    await start({ headers_timeout: '1s' })
    const { socket, received, ended } = await openConnection()
    socket.write(`${rawRequest('GET /public/a')}GET /public/b HTTP/1.1\r\n`)
    await ended
    expect(received()).toMatch(/^HTTP\/1\.1 200 [\s\S]*HTTP\/1\.1 408 /)
    expect(target.backend.requests).toHaveLength(1)
  })

  it('keeps nobody else waiting', async () => {
    await start({ headers_timeout: '1s' })
    for (let i = 0; i < 200; i += 1) (await openConnection()).socket.write('GET /public/a HTTP/1.1\r\n')
    expect((await target.attack(rawRequest('GET /public/b'), { answers: 1 })).statuses).toEqual([200])
  })
})

describe('a connection on which nothing happens', () => {
  it('is closed after its last answer', async () => {
    await start({ keep_alive_timeout: '1s' })
    const { socket, received, ended } = await openConnection()
    socket.write(rawRequest('GET /public/a'))
    await ended
    expect(received().match(/HTTP\/1\.1 /g)).toHaveLength(1)
  })

  it('past the limit is closed at once and counted, and those below it are served', async () => {
    await start({ connections: 5 })
    const kept = await Promise.all(Array.from({ length: 5 }, () => openConnection()))
    for (let i = 0; i < 3; i += 1) await (await openConnection()).ended
    expect(await target.sidecar.metrics()).toMatch(/^bearward_connections_dropped_total 3$/m)
    kept[4]?.socket.write(rawRequest('GET /public/a'))
    await expect.poll(kept[4]!.received).toMatch(/^HTTP\/1\.1 200 /)
  })
})

describe('a body that comes slowly', () => {
  const post = (path: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: api.test\r\nContent-Length: ${length}\r\n\r\n`

  it('but comes is not cut', async () => {
    await start({ body_timeout: '1s' })
    const { socket, received } = await openConnection()
    socket.write(post('/public/a', 8))
    trickle(socket, 'slowbody', 250)
    await expect.poll(received, { timeout: 10_000 }).toMatch(/^HTTP\/1\.1 200 /)
    expect(target.backend.requests[0]).toMatch(/\r\n\r\nslowbody$/)
  })

  it('and stops: 408, on a connection that ends', async () => {
    await start({ body_timeout: '1s' })
    const { socket, received, ended } = await openConnection()
    socket.write(`${post('/public/a', 100)}part`)
    await ended
    expect(received()).toMatch(/^HTTP\/1\.1 408 [\s\S]*connection: close/i)
    await expectOnce('request_timeout')
  })

  it('of a request that was refused goes nowhere, and the connection ends when it stops', async () => {
    await start({ keep_alive_timeout: '1s' })
    const { socket, received, ended } = await openConnection()
    socket.write(post('/a', 8 * CHUNK.length + 1))
    for (let i = 0; i < 8; i += 1) {
      if (!socket.write(CHUNK)) await new Promise((resolve) => socket.once('drain', resolve))
    }
    await ended
    expect(received()).toMatch(/^HTTP\/1\.1 401 /)
    expect(target.backend.requests).toEqual([])
  })
})

/** A body that no system holds between two sockets. */
const CHUNK = Buffer.alloc(2 ** 20, 'a')
const CHUNKS = 200

/** Lets the backend answer with it, and tells how many bytes of it were taken. */
function answerAtLength(head = `HTTP/1.1 200 OK\r\nContent-Length: ${CHUNKS * CHUNK.length}\r\n\r\n`) {
  const state = { written: 0, closed: 0 }
  target.backend.answer = (socket, request) => {
    if (request.includes('/canary ')) return void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    socket.on('close', () => (state.closed += 1))
    socket.write(head)
    const more = () => {
      while (state.written < CHUNKS * CHUNK.length && !socket.destroyed) {
        state.written += CHUNK.length
        if (!socket.write(CHUNK)) return void socket.once('drain', more)
      }
    }
    more()
  }
  return state
}

/** Waits until no more is written. */
async function untilStill(state: { readonly written: number }): Promise<void> {
  let last = -1
  await vi.waitFor(
    () => {
      const before = last
      last = state.written
      expect(last).toBe(before)
    },
    { timeout: 10_000, interval: 150 },
  )
}

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'

describe('a response that nobody reads', () => {
  it.each<[string, string, string | undefined]>([
    ['over HTTP/1.1', rawRequest('GET /public/a'), undefined],
    ['until the end of the connection', rawRequest('GET /public/a'), 'HTTP/1.1 200 OK\r\n\r\n'],
    ['in place of a switch of protocols', rawRequest('GET /public/a', UPGRADE), undefined],
    ['through a WebSocket', rawRequest('GET /public/a', UPGRADE), SWITCHED],
  ])('%s: the backend waits, and at last the caller is cut', async (_what, bytes, head) => {
    await start({ send_timeout: '2s' })
    const state = answerAtLength(head)
    const before = process.memoryUsage().arrayBuffers
    const socket = connect(target.sidecar.proxyPort, '127.0.0.1')
    open.push(socket.on('error', () => undefined).pause())
    socket.write(bytes)
    await expect.poll(() => state.written).toBeGreaterThan(0)
    await untilStill(state)
    // What the two systems hold between two sockets, and a chunk here.
    expect(state.written).toBeLessThan(32 * 2 ** 20)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 2 ** 20)
    await expect.poll(() => state.closed, { timeout: 10_000 }).toBe(1)
    await expect.poll(inFlight).toBe(0)
    const code = head === SWITCHED ? 'ok' : 'caller_gone'
    expect(target.sidecar.logLines().findLast(({ path }) => path === '/public/a')).toMatchObject({ code })
  })

  it('but is read, if slowly, is not cut', async () => {
    await start({ send_timeout: '2s' })
    const state = answerAtLength('HTTP/1.1 200 OK\r\nContent-Length: 12582912\r\n\r\n')
    const socket = connect(target.sidecar.proxyPort, '127.0.0.1')
    open.push(socket.on('error', () => undefined))
    let read = 0
    socket.on('data', (chunk) => {
      read += chunk.length
      socket.pause()
      setTimeout(() => socket.resume(), 30)
    })
    socket.write(rawRequest('GET /public/a'))
    await expect.poll(() => read, { timeout: 18_000 }).toBeGreaterThan(12 * 2 ** 20)
    expect(state.written).toBeGreaterThan(0)
  })

  it('behind many others, asked for without a token, takes nobody’s place, and is cut', async () => {
    await start({ send_timeout: '1s', requests_in_flight: 100 })
    const socket = connect(target.sidecar.proxyPort, '127.0.0.1')
    open.push(socket.on('error', () => undefined).pause())
    const state = { written: 0 }
    const cut = new Promise((resolve) => socket.once('close', resolve))
    const many = rawRequest('GET /a').repeat(100)
    const more = () => {
      while (!socket.destroyed) {
        state.written += many.length
        if (!socket.write(many)) return void socket.once('drain', more)
      }
    }
    more()
    await untilStill(state)
    expect((await target.attack(rawRequest('GET /public/b'), { answers: 1 })).statuses).toEqual([200])
    await cut
    await expect.poll(inFlight).toBe(0)
  })

  it.each(['/a', '/public/a'])('for %s behind shut windows of HTTP/2 ends', async (path) => {
    await start({ send_timeout: '1s' })
    if (path !== '/a') answerAtLength()
    const session: ClientHttp2Session = connectHttp2(target.sidecar.proxy, { settings: { initialWindowSize: 0 } })
    open.push(session.on('error', () => undefined))
    for (let i = 0; i < 50; i += 1)
      session
        .request({ ':path': path })
        .on('error', () => undefined)
        .pause()
    // A refusal that is not taken does not count; it is cut all the same.
    await expect.poll(inFlight).toBe(path === '/a' ? 0 : 50)
    await expect.poll(inFlight, { timeout: 10_000 }).toBe(0)
    await expect
      .poll(() => logged(path === '/a' ? 'credentials_missing' : 'caller_gone').length, { timeout: 10_000 })
      .toBe(50)
  })
})

describe('a header that is large', () => {
  const KIB = 1024
  /** A request whose header is this large, as limits count it: target, names and values. */
  const sized = (bytes: number) =>
    `GET /public/a HTTP/1.1\r\nHost: api.test\r\nX: ${'a'.repeat(Math.floor(bytes) - 22)}\r\n\r\n`

  it.each([
    ['16KiB', 15.9, 200],
    ['16KiB', 16.1, 431],
    ['32KiB', 15.9, 200],
    ['32KiB', 16.1, 200],
    ['32KiB', 31.9, 200],
    ['32KiB', 32.1, 431],
    ['64KiB', 32.1, 200],
  ])('with a limit of %s, %s KiB: %s', async (limit, kib, status) => {
    await start({ header_bytes: limit, token_bytes: '8KiB' })
    const { statuses, backend } = await target.attack(sized(kib * KIB), { answers: 1 })
    expect(statuses).toEqual([status])
    expect(backend).toHaveLength(status === 200 ? 1 : 0)
    if (status === 431) await expectOnce('header_too_large')
  })

  it.each<[string, string, number, string]>([
    [
      'a field without end',
      `GET /public/a HTTP/1.1\r\nHost: api.test\r\nX: ${'a'.repeat(200_000)}`,
      431,
      'header_too_large',
    ],
    [
      'a name without end',
      `GET /public/a HTTP/1.1\r\nHost: api.test\r\n${'a'.repeat(200_000)}`,
      431,
      'header_too_large',
    ],
    ['a target without end', `GET /public/${'a'.repeat(200_000)}`, 431, 'header_too_large'],
    [
      'fields without end',
      `GET /public/a HTTP/1.1\r\nHost: api.test\r\n${'X: 1\r\n'.repeat(50_000)}`,
      431,
      'header_too_large',
    ],
    [
      'too many fields',
      rawRequest('GET /public/a', ...Array.from({ length: 128 }, () => 'X: 1')),
      431,
      'header_too_large',
    ],
    ['a target past its own limit', rawRequest(`GET /public/${'a'.repeat(9_000)}`), 400, 'target_invalid'],
    ['no header at all', '\x01\x02\x03\x04', 400, 'header_invalid'],
    ['a malformed field', 'GET /public/a HTTP/1.1\r\nX : 1\r\n\r\n', 400, 'header_invalid'],
    ['a tunnel', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 501, 'method_not_supported'],
  ])('or not one, %s: answered, counted and logged, once', async (_what, bytes, status, code) => {
    await start()
    // In pieces, too: what comes after the answer is not a second fault.
    const pieces = bytes.match(/[\s\S]{1,16000}/g) ?? []
    const { statuses, codes, backend } = await target.attack(pieces[0] as string, { then: pieces.slice(1), answers: 1 })
    expect([statuses, codes, backend]).toEqual([[status], [code], []])
    await expectOnce(code)
  })

  it('may name as many fields in Connection as it likes', async () => {
    await start()
    const names = Array.from({ length: 4_000 }, (_, i) => `x${i}`).join(',')
    const fields = Array.from({ length: 100 }, (_, i) => `X${i}: 1`)
    const { statuses, backend } = await target.attack(rawRequest('GET /public/a', `Connection: ${names}`, ...fields), {
      answers: 1,
    })
    expect(statuses).toEqual([200])
    expect(backend[0]).not.toMatch(/^x\d/im)
  })
})

describe('connections to the backend that are all taken', () => {
  it('by bodies that do not end make others wait no longer than for a response: 504', async () => {
    const { issuer, backend } = (target = await startTarget())
    const sidecar = await startSidecar({
      config: {
        issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
        upstream: { url: backend.url, connections: 2, response_timeout: '1s' },
        rules: [{ name: 'public', prefix: ['/public'], access: 'public' }],
      },
    })
    await sidecar.ready()
    const taken = [await openRaw(sidecar.proxyPort), await openRaw(sidecar.proxyPort)]
    for (const { socket } of taken) {
      open.push(socket)
      socket.write('POST /public/a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\n')
      trickle(socket, 'a'.repeat(1000), 200)
    }
    await expect.poll(() => backend.connections()).toBe(2)
    const { status, text } = await sendRaw(sidecar.proxyPort, rawRequest('GET /public/b'))
    expect([status, text.includes('upstream_timeout')]).toEqual([504, true])
    expect(sidecar.lastRequest()).toMatchObject({ detail: { cause: 'no connection free' } })
    for (const { socket } of taken) socket.destroy()
    await expect.poll(() => sendRaw(sidecar.proxyPort, rawRequest('GET /public/c'))).toMatchObject({ status: 200 })
  })
})

describe('more requests than there is room for', () => {
  it('on many connections: those past the limit get 503 with Retry-After, and the backend sees the others', async () => {
    await start({ requests_in_flight: 10 })
    const waiting: (() => void)[] = []
    target.backend.answer = (socket) => void waiting.push(() => ok(socket))
    const callers = await Promise.all(Array.from({ length: 30 }, () => openConnection()))
    for (const { socket } of callers) socket.write(rawRequest('GET /public/a'))
    await expect.poll(() => waiting.length).toBe(10)
    await expect.poll(() => logged('overloaded').length).toBe(20)
    const other = await sendRaw(target.sidecar.proxyPort, rawRequest('GET /public/b'))
    expect(other.text).toMatch(/^HTTP\/1\.1 503 [\s\S]*retry-after: 1\r\n[\s\S]*"code":"overloaded"/i)
    for (const answer of waiting) answer()
    const statuses = () => callers.map(({ received }) => /HTTP\/1\.1 (\d{3})/.exec(received())?.[1])
    await expect.poll(() => statuses().filter((status) => status === '200')).toHaveLength(10)
    expect(statuses().filter((status) => status === '503')).toHaveLength(20)
    expect(await counted('overloaded')).toBe(21)
    expect(target.backend.requests).toHaveLength(10)
    target.backend.answer = (one) => void one.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    expect((await target.attack(rawRequest('GET /public/c'), { answers: 1 })).statuses).toEqual([200])
  })

  it('on one connection: the backend sees one at a time, all are answered, and take the place of one', async () => {
    await start({ requests_in_flight: 2 })
    const waiting: (() => void)[] = []
    target.backend.answer = (socket) => void waiting.push(() => ok(socket))
    const { socket, received } = await openConnection()
    socket.write(rawRequest('GET /public/a').repeat(2_000))
    await expect.poll(() => waiting.length).toBe(1)
    expect(await inFlight()).toBe(1)
    expect(target.backend.requests).toHaveLength(1)
    target.backend.answer = (one) => ok(one)
    waiting[0]?.()
    await expect.poll(() => received().match(/HTTP\/1\.1 200/g)?.length, { timeout: 20_000 }).toBe(2_000)
    expect(target.backend.requests).toHaveLength(2_000)
    expect(await counted('overloaded')).toBe(0)
  })

  it('behind one that waits for the backend: what is past the limit is not even read', async () => {
    await start()
    target.backend.answer = () => undefined
    const { socket } = await openConnection()
    const many = rawRequest('GET /a').repeat(500)
    socket.write(rawRequest('GET /public/a'))
    const more = () => {
      while (!socket.destroyed) {
        if (!socket.write(many)) return void socket.once('drain', more)
      }
    }
    const before = process.memoryUsage().heapUsed
    more()
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    // A request that is parsed and not answered takes a kilobyte; a hundred thousand of them come in this time.
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 2 ** 20)
    expect(await inFlight()).toBeLessThan(130)
    expect(target.sidecar.logLines().filter(({ code }) => code === 'credentials_missing')).toEqual([])
  })

  it('on one connection, but never too many at a time: all are answered', async () => {
    await start()
    const { socket, received } = await openConnection()
    for (let sent = 0; sent < 600; sent += 100) {
      socket.write(rawRequest('GET /public/a').repeat(100))
      await expect.poll(() => received().match(/HTTP\/1\.1 200/g)?.length).toBe(sent + 100)
    }
    expect(target.backend.requests).toHaveLength(600)
  })
})
