import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import {
  codeOf,
  data,
  ERROR,
  FLAG,
  frame,
  FRAME,
  headerBlock,
  headers,
  openHttp2,
  PREFACE,
  request,
  reset,
  type RawHttp2,
} from '../fakes/http2-raw.ts'
import { openRaw, rawRequest } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let clear: FakeSidecar
let secure: FakeSidecar
/** The one under attack. */
let sidecar: FakeSidecar
const authority = createAuthority('ours')
const folder = mkdtempSync(join(tmpdir(), 'bearward-floods-'))
const connections: RawHttp2[] = []
const CHUNK = Buffer.alloc(64 * 1024)
/** What the backend has written of endless bodies, in bytes. */
let written = 0

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((request, response, recorded) => {
    if (recorded.url.startsWith('/public/hang')) return void request.resume()
    if (recorded.url.startsWith('/public/endless')) {
      const more = () => {
        do written += CHUNK.length
        while (response.write(CHUNK))
      }
      response.on('drain', more)
      return more()
    }
    response.end('ok')
  })
  const { cert, key } = authority.issue('api.test', '127.0.0.1')
  const tls = { certificate_file: join(folder, 'cert.pem'), key_file: join(folder, 'key.pem') }
  writeFileSync(tls.certificate_file, cert)
  writeFileSync(tls.key_file, key)
  const config = {
    issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
    upstream: upstream.url,
    rules: [{ name: 'public', prefix: ['/public'], access: 'public' }],
    limits: { concurrent_streams: 50, headers_timeout: '1s' },
  }
  clear = sidecar = await startSidecar({ config })
  secure = await startSidecar({ config: { ...config, listen: { tls } } })
  await Promise.all([clear.ready(), secure.ready()])
})

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.close()
  await vi.waitFor(async () => expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/), 10_000)
  upstream.requests.splice(0)
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

async function open(polite = true): Promise<RawHttp2> {
  const connection = await openHttp2(sidecar.proxyPort, polite, sidecar === secure ? authority.certificate : undefined)
  connections.push(connection)
  return connection
}

/** Another connection is served meanwhile. */
async function servesOn(): Promise<void> {
  const connection = await open()
  connection.send(headers(1, request('/public/alive')))
  expect(await connection.wait(({ type, id }) => type === FRAME.data && id === 1)).toBeDefined()
}

/** Sends the same again and again until the server has had enough, or reads no more; at most `times` times. */
async function flood(connection: RawHttp2, times: number, make: (i: number) => Buffer): Promise<number> {
  for (let i = 0; i < times; i += 1) {
    if (connection.closed) return i
    if (!connection.socket.write(make(i))) {
      // A server that reads no more has had enough, too.
      const stalled = await Promise.race([
        new Promise((resolve) => connection.socket.once('drain', () => resolve(false))),
        new Promise((resolve) => connection.socket.once('close', () => resolve(false))),
        new Promise((resolve) => setTimeout(resolve, 2_000, true)),
      ])
      if (stalled) return i
    }
    if (i % 100 === 99) await new Promise((resolve) => setImmediate(resolve))
  }
  return times
}

const isGoaway = ({ type }: { type: number }) => type === FRAME.goaway

describe.each([['in the clear'], ['over TLS']])('%s', (how) => {
  beforeAll(() => void (sidecar = how === 'over TLS' ? secure : clear))
  afterAll(() => void (sidecar = clear))

  describe('a connection is closed', () => {
    it('when it opens streams only to reset them (CVE-2023-44487)', async () => {
      const one = await open()
      const sent = await flood(one, 20_000, (i) =>
        Buffer.concat([headers(2 * i + 1, request('/public/hang'), false), reset(2 * i + 1, ERROR.cancel)]),
      )
      expect(await one.ended()).toBe(true)
      expect(sent).toBeLessThan(20_000)
      // The burst is a thousand; some more are let through as time goes by.
      expect(upstream.requests.length).toBeLessThan(5_000)
      await servesOn()
      await vi.waitFor(() => expect(upstream.requests.filter(({ state }) => state === 'open')).toEqual([]), 10_000)
    })

    it('when a header goes on and on (CVE-2024-27316)', async () => {
      const one = await open()
      one.send(frame(FRAME.headers, 0, 1, headerBlock(request('/public/a'))))
      const more = frame(FRAME.continuation, 0, 1, headerBlock([['x-odd', 'x'.repeat(1_000)]]))
      const sent = await flood(one, 5_000, () => more)
      expect(await one.ended()).toBe(true)
      expect(sent).toBeLessThan(5_000)
      expect(upstream.requests).toEqual([])
      await servesOn()
    })

    it.each([
      ['PING', frame(FRAME.ping, 0, 0, Buffer.alloc(8))],
      ['SETTINGS', frame(FRAME.settings, 0, 0)],
    ])(
      'or not read any further, when it floods with %s and reads no answers (CVE-2019-9512, -9515)',
      async (name, one) => {
        const connection = await open(false)
        connection.socket.pause()
        const before = process.memoryUsage().arrayBuffers
        const many = Buffer.concat(Array.from({ length: 1_000 }, () => one))
        const sent = await flood(connection, 5_000, () => many)
        expect(sent).toBeLessThan(5_000)
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(5 * 2 ** 20)
        await servesOn()
        connection.socket.resume()
        // A record of TLS holds fewer of them than the library takes at once.
        if (how === 'in the clear' || name === 'SETTINGS') expect(await connection.ended()).toBe(true)
      },
      60_000,
    )

    it('when it sends what is no frame of HTTP/2', async () => {
      const one = await open()
      one.send(Buffer.from('GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(10)))
      expect(codeOf((await one.wait(isGoaway))!)).not.toBe(ERROR.none)
      expect(await one.ended()).toBe(true)
      await vi.waitFor(() => {
        const line = { code: 'frame_invalid', status: 400, rule: 'none', peer: '127.0.0.1' }
        expect(sidecar.lastRequest()).toMatchObject(line)
      }, 5_000)
      expect(await sidecar.metrics()).toMatch(
        /bearward_requests_total\{rule="none",code="frame_invalid",status_class="4xx"\} \d+/,
      )
    })

    it.each<[string, Buffer[]]>([
      ['a stream with an even number', [headers(2, request('/public/a'))]],
      ['a body without a request', [data(1, 'x')]],
      ['a push', [frame(FRAME.pushPromise, FLAG.endHeaders, 1, Buffer.alloc(4))]],
      ['a window that grows by nothing', [frame(FRAME.windowUpdate, 0, 0, Buffer.alloc(4))]],
      ['a ping of the wrong size', [frame(FRAME.ping, 0, 0, Buffer.alloc(7))]],
      ['a frame that is too large', [frame(FRAME.data, 0, 1, Buffer.alloc(20_000))]],
      ['a header that no decoder understands', [frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(20, 0xff))]],
    ])('for %s', async (_name, frames) => {
      const one = await open()
      one.send(...frames)
      expect(await one.ended()).toBe(true)
      await servesOn()
    })

    it.each<[string, (id: number) => Buffer[]]>([
      ['a window that grows by nothing', (id) => [opened(id), frame(FRAME.windowUpdate, 0, id, u32(0))]],
      ['a window that grows too large', (id) => [opened(id), frame(FRAME.windowUpdate, 0, id, u32(0x7fffffff))]],
      ['a priority that is too short', (id) => [opened(id), frame(FRAME.priority, 0, id, Buffer.alloc(4))]],
      [
        'a stream that depends on itself',
        (id) => [opened(id), frame(FRAME.priority, 0, id, Buffer.from([...u32(id), 1]))],
      ],
      ['a header after its end', (id) => [opened(id), headers(id, [['x', 'y']])]],
      ['a body after its end', (id) => [opened(id), data(id, 'x')]],
      ['a body that is too long', (id) => [opened(id, '1'), data(id, 'xyz')]],
      ['a body that is too short', (id) => [opened(id, '5'), data(id, 'xyz')]],
      ['trailers that end nothing', (id) => [opened(id, '5'), headers(id, [['x', 'y']], false)]],
    ])('when it has the server reset its streams (CVE-2025-8671), by %s', async (_name, make) => {
      const one = await open()
      const sent = await flood(one, 5_000, (i) => Buffer.concat(make(2 * i + 1)))
      expect(await one.ended()).toBe(true)
      expect(sent).toBeLessThan(5_000)
      expect(upstream.requests.length).toBeLessThan(1_000)
      await servesOn()
      await vi.waitFor(() => expect(upstream.requests.filter(({ state }) => state === 'open')).toEqual([]), 10_000)
    })

    it.each<[string, (i: number) => Buffer]>([
      ['a body in empty pieces (CVE-2019-9518)', () => data(1, '', false)],
      ['a header in empty pieces', (i) => frame(i === 0 ? FRAME.headers : FRAME.continuation, 0, 3)],
      ['settings that nobody asked to be acknowledged', () => frame(FRAME.settings, FLAG.ack, 0)],
      ['answers to no ping', () => frame(FRAME.ping, FLAG.ack, 0, Buffer.alloc(8))],
      ['very many settings at once', () => frame(FRAME.settings, 0, 0, Buffer.alloc(6 * 40))],
      ['resets of the same stream', () => reset(1, ERROR.cancel)],
      ['priorities (CVE-2019-9513)', (i) => frame(FRAME.priority, 0, 2 * i + 3, Buffer.from([...u32(2 * i + 5), 1]))],
      ['frames of an unknown type', () => frame(0x42, 0, 0, Buffer.alloc(8))],
    ])('when it floods with %s', async (_name, make) => {
      const one = await open()
      one.send(headers(1, request('/public/hang', [], 'POST'), false))
      const sent = await flood(one, 50_000, make)
      expect(await one.ended()).toBe(true)
      expect(sent).toBeLessThan(50_000)
      await servesOn()
    })

    it('when the same malformed header comes again and again', async () => {
      const one = await open()
      const sent = await flood(one, 5_000, (i) => headers(2 * i + 1, request('/public/a', [['connection', 'close']])))
      expect(await one.ended()).toBe(true)
      expect(sent).toBeLessThan(5_000)
      expect(upstream.requests).toEqual([])
      await servesOn()
    })
  })

  it('a stream with a lower number than before is passed over', async () => {
    const one = await open()
    one.send(
      headers(5, request('/public/five')),
      headers(3, request('/public/three')),
      headers(7, request('/public/7')),
    )
    await one.wait(({ type, id }) => type === FRAME.data && id === 7)
    expect(upstream.requests.map(({ url }) => url).sort()).toEqual(['/public/7', '/public/five'])
  })

  describe('a stream is refused', () => {
    it('when there are too many at a time', async () => {
      const one = await open()
      for (let i = 0; i < 60; i += 1) one.send(headers(2 * i + 1, request(`/public/hang/${i}`)))
      for (let i = 50; i < 60; i += 1) {
        const refused = await one.wait(({ type, id }) => type === FRAME.rstStream && id === 2 * i + 1)
        expect(codeOf(refused!)).toBe(ERROR.refused)
      }
      await vi.waitFor(() => expect(upstream.requests).toHaveLength(50), 5_000)
      await servesOn()
    })

    it('when its header is a bomb: few bytes on the wire, many in memory', async () => {
      const one = await open()
      // Puts a field of 4,000 bytes into the table, then names it a hundred times.
      const value = Buffer.alloc(4_000, 'x')
      const define = Buffer.concat([Buffer.from([0x40, 5]), Buffer.from('x-odd'), lengthOf(value.length), value])
      const again = Buffer.alloc(100, 0x80 | 62)
      one.send(
        frame(
          FRAME.headers,
          FLAG.endHeaders | FLAG.endStream,
          1,
          Buffer.concat([headerBlock(request('/public/a')), define, again]),
        ),
      )
      const end = await one.wait(({ type, id }) => id === 1 && (type === FRAME.headers || type === FRAME.rstStream))
      expect(end?.type === FRAME.rstStream || sidecar.lastRequest()['code'] === 'header_too_large').toBe(true)
      expect(upstream.requests).toEqual([])
      await servesOn()
    })

    it('when its header has very many fields', async () => {
      const one = await open()
      const many = Array.from({ length: 3_000 }, () => ['x', ''] as const)
      const block = headerBlock(request('/public/a', many))
      one.send(frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, 1, block))
      const end = await one.wait(({ type, id }) => id === 1 && (type === FRAME.headers || type === FRAME.rstStream))
      expect(end?.type === FRAME.rstStream || sidecar.lastRequest()['code'] === 'header_too_large').toBe(true)
      expect(upstream.requests).toEqual([])
    })
  })

  describe('a caller that reads nothing', () => {
    it('makes the backend wait, not the sidecar grow (CVE-2019-9517)', async () => {
      const one = await open()
      // No window for any stream.
      one.send(frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])))
      await one.wait(({ type, flags }) => type === FRAME.settings && flags === FLAG.ack)
      const before = process.memoryUsage().arrayBuffers
      for (let i = 0; i < 10; i += 1) one.send(headers(2 * i + 1, request(`/public/endless/${i}`)))
      await vi.waitFor(() => expect(upstream.requests).toHaveLength(10), 5_000)
      let last = 0
      await vi.waitFor(
        () => {
          const stands = written === last
          last = written
          expect(stands).toBe(true)
        },
        { timeout: 15_000, interval: 300 },
      )
      await servesOn()
      expect(upstream.requests.filter(({ state }) => state === 'open')).toHaveLength(10)
      // What the system holds of ten connections is not counted here; the sidecar holds a chunk or two of each.
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10 * 2 ** 20)
      one.close()
      await vi.waitFor(() => expect(upstream.requests.filter(({ state }) => state === 'open')).toEqual([]), 10_000)
    })
  })

  describe('a stream that is reset while its response waits to be taken', () => {
    it.each([ERROR.none, ERROR.cancel])('with code %i leaves nothing behind', async (code) => {
      const one = await open()
      one.send(frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])))
      await one.wait(({ type, flags }) => type === FRAME.settings && flags === FLAG.ack)
      one.send(
        headers(1, request('/public/a')),
        headers(3, request('/public/hang', [], 'POST'), false),
        data(3, 'x', false),
      )
      expect(await one.wait(({ type, id }) => type === FRAME.headers && id === 1)).toBeDefined()
      await vi.waitFor(() => expect(upstream.requests).toHaveLength(2), 5_000)
      one.send(reset(1, code), reset(3, code))
      await vi.waitFor(async () => expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/), 10_000)
      expect(one.closed).toBe(false)
    })
  })
})

describe('the first bytes of a connection', () => {
  it('may be the preface in single bytes', async () => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    const bytes = Buffer.concat([Buffer.from(PREFACE), frame(FRAME.settings, 0, 0), headers(1, request('/public/a'))])
    for (const byte of bytes.subarray(0, 40)) {
      socket.write(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    socket.write(bytes.subarray(40))
    await vi.waitFor(() => expect(received()).toMatch(/ok$/), 5_000)
    socket.destroy()
  })

  it('may be a request of HTTP/1.1 in single bytes', async () => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    for (const byte of Buffer.from(rawRequest('PUT /public/a'))) {
      socket.write(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await vi.waitFor(() => expect(received()).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*ok$/), 5_000)
    socket.destroy()
  })

  it.each([
    ['almost the preface', `${PREFACE.slice(0, -4)}XX\r\n`],
    ['a version from the future', 'PRI * HTTP/3.0\r\n\r\n'],
  ])('that are %s get an answer of HTTP/1.1', async (_name, bytes) => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write(bytes)
    await vi.waitFor(() => expect(received()).toMatch(/^HTTP\/1\.1 (400|501) /), 5_000)
    socket.destroy()
  })

  it.each([
    ['nothing', ''],
    ['half of the preface', PREFACE.slice(0, 10)],
  ])('that are %s are waited for, but not for long', async (_name, bytes) => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    if (bytes !== '') socket.write(bytes)
    await vi.waitFor(() => expect(received()).toMatch(/^HTTP\/1\.1 408 [^]*"code":"request_timeout"/), 8_000)
    expect(sidecar.lastRequest()).toMatchObject({ code: 'request_timeout', status: 408 })
    socket.destroy()
  })

  it('are no reason to keep a connection whose peer does not close it after its refusal', async () => {
    const socket = connect({ port: sidecar.proxyPort, host: '127.0.0.1', allowHalfOpen: true })
    const closed = new Promise((resolve) => socket.on('error', () => undefined).once('close', resolve))
    socket.write(PREFACE.slice(0, 10))
    await new Promise((resolve) => socket.resume().once('end', resolve))
    // Ours is still open. Whoever writes into what is gone is told so.
    const poke = setInterval(() => socket.write('x'), 100)
    await closed
    clearInterval(poke)
  })

  it('and no more leave nothing behind when the caller goes', async () => {
    const { socket } = await openRaw(sidecar.proxyPort)
    socket.end(PREFACE.slice(0, 10))
    await new Promise((resolve) => socket.once('close', resolve))
    await servesOn()
  })
})

/** Opens a stream that the backend leaves open; with a length, its body is still to come. */
function opened(id: number, length?: string): Buffer {
  const path = '/public/hang'
  if (length === undefined) return headers(id, request(path))
  return headers(id, request(path, [['content-length', length]], 'POST'), false)
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** An integer with a prefix of seven bits (RFC 7541 §5.1). */
function lengthOf(value: number): Buffer {
  const rest = value - 127
  return Buffer.from([127, (rest % 128) + 128, Math.floor(rest / 128)])
}
