import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { arrival, maskId, startTarget, type Target } from '../fakes/attack.ts'
import { openRaw } from '../fakes/raw.ts'
import { ok } from '../fakes/recorder.ts'
import { startRawUpstream } from '../fakes/upstream.ts'

/** What follows a request on its connection: a switch of protocols, a body that was asked for, other requests. */
let target: Target

beforeAll(async () => void (target = await startTarget()))
afterEach(() => void (target.backend.answer = ok))
afterAll(async () => {
  // None of this may be an error that nobody expected, such as one thrown into an event of a socket.
  expect(target.sidecar.logText()).not.toContain('unexpected error')
  await target.stop()
})

const HOST = 'Host: api.test\r\n'
const request = (line: string, fields = '', body = '') => `${line} HTTP/1.1\r\n${HOST}${fields}\r\n${body}`
const HANDSHAKE = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const WEBSOCKET = `Connection: Upgrade\r\nUpgrade: websocket\r\n${HANDSHAKE}`
const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
const HIDDEN = request('GET /admin', 'X-Smuggled: 1\r\n')
const H2C = 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n'

describe('a switch to another protocol', () => {
  it.each<[string, string]>([
    ['h2c', `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n${H2C}`],
    ['h2c that Connection does not name', `Upgrade: h2c\r\n${H2C}`],
    ['h2c, and HTTP2-Settings alone in Connection', `Connection: HTTP2-Settings\r\nUpgrade: h2c\r\n${H2C}`],
    ['h2c in capitals', `Connection: UPGRADE\r\nUPGRADE: H2C\r\n${H2C}`],
    ['h2c behind websocket', `Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n${HANDSHAKE}`],
    ['h2c before websocket', `Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n${HANDSHAKE}`],
    ['websocket, then h2c', `Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n${HANDSHAKE}`],
    ['h2', 'Connection: Upgrade\r\nUpgrade: h2\r\n'],
    ['HTTP/2.0', 'Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n'],
    ['TLS/1.3', 'Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n'],
    ['nothing', 'Connection: Upgrade\r\nUpgrade:\r\n'],
    ['websocket with a version', `Connection: Upgrade\r\nUpgrade: websocket/13\r\n${HANDSHAKE}`],
    ['websocket twice', `Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n${HANDSHAKE}`],
    ['websocket that Connection does not name', `Upgrade: websocket\r\n${HANDSHAKE}`],
    ['websocket and keep-alive', `Connection: keep-alive\r\nUpgrade: websocket\r\n${HANDSHAKE}`],
  ])('%s: refused, and no byte behind it reaches the backend', async (_what, fields) => {
    const { statuses, codes, backend } = await target.attack(request('GET /public/a', fields) + HIDDEN, { answers: 1 })
    expect(statuses[0]).toBe(501)
    expect(codes[0]).toBe('upgrade_not_supported')
    expect(backend).toEqual([])
  })

  it.each(['POST', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'PATCH'])('by %s: refused', async (method) => {
    const { statuses, codes, backend, closed } = await target.attack(request(`${method} /public/a`, WEBSOCKET) + HIDDEN)
    expect([statuses, codes.length, backend, closed]).toEqual([[501], method === 'HEAD' ? 0 : 1, [], true])
  })

  it.each([
    ['a length', 'Content-Length: 5\r\n', 'hello'],
    ['chunks', 'Transfer-Encoding: chunked\r\n', '5\r\nhello\r\n0\r\n\r\n'],
    ['a length that hides a request', `Content-Length: ${HIDDEN.length}\r\n`, ''],
  ])('with a body of %s: refused', async (_what, fields, body) => {
    const bytes = request('GET /public/a', WEBSOCKET + fields, body + HIDDEN)
    expect(await target.attack(bytes)).toMatchObject({ statuses: [400], backend: [], closed: true })
  })

  it.each([
    ['a length', 'Content-Length: 500\r\n', 'part'],
    ['chunks', 'Transfer-Encoding: chunked\r\n', '5\r\nhel'],
  ])('with a body of %s that is still on its way: refused', async (_what, fields, body) => {
    const faults: unknown[] = []
    const note = (error: unknown) => void faults.push(error)
    process.on('uncaughtException', note)
    const bytes = request('GET /public/a', WEBSOCKET + fields, body)
    expect(await target.attack(bytes)).toMatchObject({ statuses: [400], backend: [], closed: true })
    process.off('uncaughtException', note)
    expect(faults).toEqual([])
  })

  it.each(['HTTP/1.0', 'HTTP/0.9'])('in %s: refused or without a tunnel', async (version) => {
    const bytes = `GET /public/a ${version}\r\n${HOST}${WEBSOCKET}\r\n${HIDDEN}`
    const { backend, closed } = await target.attack(bytes)
    expect(backend.join('')).not.toContain('X-Smuggled')
    expect(closed).toBe(true)
  })

  it('without a token: 401, nothing reaches the backend, and the connection does not stay', async () => {
    const before = target.backend.connections()
    const outcome = await target.attack(request('GET /a', WEBSOCKET) + HIDDEN)
    expect(outcome).toMatchObject({ statuses: [401], codes: ['credentials_missing'], backend: [], closed: true })
    expect(target.backend.connections() - before).toBeLessThanOrEqual(1)
  })

  const arrived = arrival('GET /public/a HTTP/1.1', HOST + HANDSHAKE).replace(
    'connection: keep-alive',
    'connection: Upgrade\r\nupgrade: websocket',
  )

  it.each([
    ['200', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', [200]],
    ['200 until the end', 'HTTP/1.1 200 OK\r\n\r\nok', [200]],
    ['426', 'HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n', [426]],
    ['100, then 200', 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', [200]],
    ['101 without a protocol', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', [502]],
    ['101 to h2c', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n', [502]],
    ['101 to two', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, h2c\r\n\r\n', [502]],
    ['103, then 101', `HTTP/1.1 103 Early Hints\r\n\r\n${SWITCHED}`, [502]],
    ['200 with a 101 behind it', `HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n${SWITCHED}`, [200]],
    ['a 101 of HTTP/2', 'HTTP/2 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n', [502]],
    ['nonsense', 'nonsense\r\n\r\n', [502]],
  ])('that the backend answers with %s opens no tunnel', async (_what, answer, statuses) => {
    target.backend.answer = (socket) => void socket.write(answer)
    const closing = answer.endsWith('\r\n\r\nok') && !answer.includes('Content-Length')
    if (closing) target.backend.answer = (socket) => void socket.end(answer)
    const outcome = await target.attack(request('GET /public/a', WEBSOCKET) + HIDDEN, { then: [HIDDEN] })
    expect(outcome.statuses).toEqual(statuses)
    expect(outcome.closed).toBe(true)
    expect(outcome.backend.map(maskId)).toEqual([arrived])
  })

  it.each(['Sec-WebSocket-Version: 12\r\n', 'Sec-WebSocket-Version: 13\r\n', ''])(
    'with %j for its version is the backend’s to refuse',
    async (version) => {
      target.backend.answer = (socket) =>
        void socket.write('HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n')
      const bytes = request('GET /public/a', `Connection: Upgrade\r\nUpgrade: websocket\r\n${version}`)
      const outcome = await target.attack(bytes, { then: [HIDDEN] })
      expect(outcome).toMatchObject({ statuses: [426], closed: true })
      expect(outcome.backend).toHaveLength(1)
      expect(outcome.text).toMatch(/sec-websocket-version: 13/i)
    },
  )

  it('hands early bytes over after a 101, and not before', async () => {
    let tunnel: Socket | undefined
    target.backend.answer = (socket) => void (tunnel = socket)
    const { socket, received } = await openRaw(target.sidecar.proxyPort)
    const before = target.backend.requests.length
    socket.write(request('GET /public/a', WEBSOCKET) + HIDDEN)
    await expect.poll(() => tunnel).toBeDefined()
    let early = ''
    tunnel?.on('data', (chunk: Buffer) => (early += chunk.toString('latin1')))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(early).toBe('')
    tunnel?.write(SWITCHED)
    await expect.poll(() => early).toBe(HIDDEN)
    expect(received()).toMatch(/^HTTP\/1\.1 101 /)
    socket.destroy()
    await expect.poll(() => tunnel?.destroyed).toBe(true)
    target.backend.requests.splice(before)
  })

  it('behind a request that is not answered yet waits for its answer', async () => {
    const answers: (() => void)[] = []
    target.backend.answer = (socket) => void answers.push(() => ok(socket))
    const { socket, received } = await openRaw(target.sidecar.proxyPort)
    const before = target.backend.requests.length
    socket.write(request('GET /public/a') + request('GET /public/b') + request('GET /a', WEBSOCKET) + HIDDEN)
    await expect.poll(() => answers.length).toBe(1)
    expect(received()).toBe('')
    answers[0]?.()
    await expect.poll(() => answers.length).toBe(2)
    answers[1]?.()
    await expect.poll(received).toMatch(/200 OK[\s\S]*200 OK[\s\S]*401 Unauthorized[\s\S]*\}$/)
    expect(target.backend.requests.splice(before)).toHaveLength(2)
    socket.destroy()
  })

  it('behind a request whose caller then leaves ends with it', async () => {
    let reached = 0
    target.backend.answer = () => void (reached += 1)
    const { socket } = await openRaw(target.sidecar.proxyPort)
    const before = target.backend.requests.length
    socket.write(request('GET /public/a') + request('GET /public/b', WEBSOCKET))
    await expect.poll(() => reached).toBe(1)
    socket.resetAndDestroy()
    await expect.poll(() => target.sidecar.lastRequest()).toMatchObject({ path: '/public/a', code: 'caller_gone' })
    expect(target.backend.requests.splice(before)).toHaveLength(1)
  })
})

describe('a body that is to be asked for', () => {
  const expecting = (path: string, value: string, body = '') =>
    request(`POST ${path}`, `Expect: ${value}\r\nContent-Length: 5\r\n`, body)
  const arrived = (body: string) => arrival('POST /public/a HTTP/1.1', `${HOST}Content-Length: 5\r\n`, body)

  it.each(['100-continue', '100-Continue', '100-CONTINUE'])('by %s: asked for once it is permitted', async (value) => {
    const outcome = await target.attack(expecting('/public/a', value), { then: ['hello'], answers: 2 })
    expect(outcome.statuses).toEqual([100, 200])
    expect(outcome.backend.map(maskId)).toEqual([arrived('hello')])
  })

  it.each(['/a', '/public/../a'])('of a request for %s that is refused: the connection ends', async (path) => {
    // Whoever skips the body has its next request there, and it would be read as the body, or the body as a request.
    const outcome = await target.attack(expecting(path, '100-continue'), { then: [HIDDEN] })
    expect(outcome.statuses).toHaveLength(1)
    expect(outcome).toMatchObject({ backend: [], closed: true })
  })

  it.each(['x', '', '100-continuex', '200-ok', '100', '"100-continue"x', '100-continue=1x'])(
    'by %j: refused, or asked for',
    async (value) => {
      const outcome = await target.attack(expecting('/public/a', value), { then: ['hello'] })
      if (outcome.statuses[0] === 417) expect(outcome.backend).toEqual([])
      else expect([outcome.statuses, outcome.backend.map(maskId)]).toEqual([[100, 200], [arrived('hello')]])
    },
  )

  it('twice, or beside another expectation, is still one body', async () => {
    for (const value of ['100-continue\r\nExpect: 100-continue', '100-continue, x', 'x, 100-continue']) {
      const outcome = await target.attack(expecting('/public/a', value, 'hello') + HIDDEN)
      expect(outcome.backend.join('')).not.toContain('X-Smuggled')
      expect(outcome.backend.length).toBeLessThanOrEqual(1)
    }
  })

  it.each([
    ['HTTP/1.0', `POST /public/a HTTP/1.0\r\n${HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello`],
    ['a GET without one', request('GET /public/a', 'Expect: 100-continue\r\n')],
  ])('in %s: no interim answer', async (_what, bytes) => {
    const { statuses } = await target.attack(bytes, { answers: 1 })
    expect(statuses).not.toContain(100)
  })
})

describe('requests one behind the other', () => {
  const token = () => `Authorization: Bearer ${target.issuer.signAccessToken()}\r\n`

  it('are answered in their order, whatever takes how long', async () => {
    target.backend.answer = (socket, text) => {
      const path = /\/\d/.exec(text)?.[0] as string
      const delay = path === '/1' ? 60 : 0
      setTimeout(() => socket.write(`HTTP/1.1 200 OK\r\nX-Path: ${path}\r\nContent-Length: 0\r\n\r\n`), delay)
    }
    const bytes = request('GET /public/1') + request('GET /2') + request('GET /public/3') + request('GET /4', token())
    const { statuses, text, backend } = await target.attack(bytes, { answers: 4 })
    expect(statuses).toEqual([200, 401, 200, 200])
    expect([...text.matchAll(/x-path: (\/\d)/gi)].map((match) => match[1])).toEqual(['/1', '/3', '/4'])
    expect(backend.map((one) => one.split(' ')[1]).sort()).toEqual(['/4', '/public/1', '/public/3'])
  })

  it('do not lend each other a token', async () => {
    const bytes = request('GET /1', token()) + request('GET /2') + request('GET /admin', token()) + request('GET /4')
    const { statuses, backend } = await target.attack(bytes, { answers: 4 })
    expect(statuses).toEqual([200, 401, 403, 401])
    expect(backend.map((one) => one.split(' ')[1])).toEqual(['/1'])
  })

  it.each([
    ['malformed', 'GET /public/b HTTP/1.1\r\nX : 1\r\n\r\n'],
    ['of another version', `GET /public/b HTTP/2.0\r\n${HOST}\r\n`],
    ['with an odd coding', request('POST /public/b', 'Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n')],
    ['with chunks in HTTP/1.0', `POST /public/b HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['a CONNECT', request('CONNECT api.test:443')],
    ['an upgrade', request('GET /public/b', `Connection: Upgrade\r\nUpgrade: h2c\r\n${H2C}`)],
    ['the last one', request('GET /b', 'Connection: close\r\n')],
  ])('behind one that is %s, nothing reaches the backend', async (_what, bad) => {
    const outcome = await target.attack(bad + HIDDEN + request('GET /public/c') + request('GET /d', token()))
    expect(outcome.statuses).toHaveLength(1)
    expect(outcome).toMatchObject({ backend: [], closed: true })
    // The same behind a good one, whose answer may be lost, but not followed.
    const after = await target.attack(request('GET /public/a') + bad + request('GET /public/c'))
    expect(after.backend.filter((one) => one.includes('/public/c'))).toEqual([])
    expect(after.closed).toBe(true)
  })

  it('a body that nobody wanted is no request', async () => {
    const body = request('GET /public/hidden')
    for (const bytes of [
      request('POST /a', `Content-Length: ${body.length}\r\n`, body),
      request('POST /a', 'Transfer-Encoding: chunked\r\n', `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`),
      request('GET /a', `Content-Length: ${body.length}\r\n`, body),
      request('POST /public/../a', `Content-Length: ${body.length}\r\n`, body),
      request('TRACE /public/a', `Content-Length: ${body.length}\r\n`, body),
      request('POST /public/a', `Expect: x\r\nContent-Length: ${body.length}\r\n`, body),
    ]) {
      const outcome = await target.attack(bytes + request('GET /public/c'), { answers: 2 })
      expect(outcome.backend.map((one) => one.split(' ')[1])).toEqual(['/public/c'])
      expect(outcome.statuses).toHaveLength(2)
    }
  })

  it('a body that the backend did not want is no request either', async () => {
    const body = request('GET /public/hidden')
    const upstream = await startRawUpstream((socket, received) => {
      // The answer to the POST comes while its body is on its way.
      if (received.endsWith('\r\n\r\n')) ok(socket)
    })
    const other = await startTarget({ upstream: upstream.url })
    const { socket, received } = await openRaw(other.sidecar.proxyPort)
    socket.write(request('POST /public/a', `Content-Length: ${body.length}\r\n`))
    await expect.poll(received).toMatch(/200 OK[\s\S]*ok$/)
    socket.write(body + request('GET /public/c'))
    await expect.poll(received).toMatch(/200 OK[\s\S]*ok[\s\S]*200 OK[\s\S]*ok$/)
    expect(upstream.received()).not.toContain('/public/hidden')
    expect(upstream.received().match(/^(?:GET|POST) \S+/gm)).toEqual(['POST /public/a', 'GET /public/c'])
    socket.destroy()
    await other.stop()
    await upstream.stop()
  })

  it('a body that is cut off takes its connection to the backend along', async () => {
    for (const fields of [`Content-Length: ${HIDDEN.length + 9}\r\n`, 'Transfer-Encoding: chunked\r\n']) {
      const head = request('POST /public/a', fields)
      const part = fields.startsWith('T') ? `ffff\r\n${HIDDEN}` : HIDDEN
      const before = target.backend.connections()
      const { socket } = await openRaw(target.sidecar.proxyPort)
      const at = target.backend.requests.length
      socket.write(head + part)
      await new Promise((resolve) => setTimeout(resolve, 30))
      socket.resetAndDestroy()
      await expect.poll(() => target.backend.requests.length).toBe(at + 1)
      const [cut = ''] = target.backend.requests.splice(at)
      expect(cut).toMatch(/^POST \/public\/a HTTP\/1\.1\r\n/)
      const { statuses, backend } = await target.attack(request('GET /public/b'), { answers: 1 })
      expect([statuses, backend.length]).toEqual([[200], 1])
      expect(target.backend.connections()).toBeGreaterThan(before)
    }
  })
})
