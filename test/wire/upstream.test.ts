import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw, rawRequest } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startRawUpstream, startUpstream, type Handler, type RawUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
const stops: (() => Promise<void>)[] = []

beforeAll(async () => {
  issuer = await startAuthorizationServer()
})
afterEach(async () => {
  await stopSidecars()
  await Promise.all(stops.splice(0).map((stop) => stop()))
})
afterAll(() => issuer.stop())

async function sidecarFor(url: string, more: Record<string, unknown> = {}): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: { url, response_timeout: '1s', idle_timeout: '1s', ...more },
    },
  })
  await sidecar.ready()
  return sidecar
}

/** A backend on a bare socket that gives each request whole the next of these answers, the last one for ever. */
async function backend(
  ...answers: ((socket: Socket) => void)[]
): Promise<{ sidecar: FakeSidecar; upstream: RawUpstream }> {
  let count = 0
  const upstream = await startRawUpstream((socket, received) => {
    const requests = received.split('\r\n\r\n').length - 1
    for (; count < requests; count += 1) (answers[count] ?? answers.at(-1))?.(socket)
  })
  stops.push(() => upstream.stop())
  return { sidecar: await sidecarFor(upstream.url), upstream }
}

async function nodeBackend(handler: Handler): Promise<FakeSidecar> {
  const upstream = await startUpstream(handler)
  stops.push(() => upstream.stop())
  return sidecarFor(upstream.url)
}

const send = (sidecar: FakeSidecar, init: RequestInit = {}) =>
  fetch(`${sidecar.proxy}/a`, {
    ...init,
    headers: { authorization: `Bearer ${issuer.signAccessToken()}`, ...init.headers },
  })

async function outcome(sidecar: FakeSidecar, init?: RequestInit): Promise<string> {
  const response = await send(sidecar, init)
  const { code } = (await response.json()) as { code: string }
  expect(sidecar.lastRequest()).toMatchObject({ code, status: response.status })
  return `${response.status} ${code}`
}

const write = (text: string) => (socket: Socket) => void socket.write(text, 'latin1')
const ok = write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')

describe('an upstream', () => {
  it('that refuses connections: 502', async () => {
    const upstream = await startUpstream()
    await upstream.stop()
    expect(await outcome(await sidecarFor(upstream.url))).toBe('502 upstream_unreachable')
  })

  it('that does not answer: 504, and its connection is closed', async () => {
    let closed = false
    const { sidecar } = await backend((socket) => socket.on('close', () => (closed = true)))
    expect(await outcome(sidecar)).toBe('504 upstream_timeout')
    await expect.poll(() => closed).toBe(true)
  })

  it.each<[string, (socket: Socket) => void]>([
    ['closes before it answers', (socket) => socket.end()],
    ['resets before it answers', (socket) => socket.resetAndDestroy()],
    ['closes within the head', (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Le')],
    ['announces something and closes', (socket) => socket.end('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')],
  ])('that %s: 502', async (_what, answer) => {
    const { sidecar } = await backend(answer)
    expect(await outcome(sidecar)).toBe('502 upstream_reset')
  })

  it.each<[string, string]>([
    ['garbage', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
    ['length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['an unknown coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok'],
    ['a folded line', 'HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok'],
    ['a line break in a value', 'HTTP/1.1 200 OK\r\nX: 1\nSet-Cookie: a\r\nContent-Length: 2\r\n\r\nok'],
    ['a huge head', `HTTP/1.1 200 OK\r\n${'X: 1\r\n'.repeat(20_000)}\r\n`],
    [
      'a body whose first bytes are wrong, with its head',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n',
    ],
    ['another protocol unasked', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n'],
  ])('that sends %s: 502', async (_what, text) => {
    const { sidecar } = await backend(write(text))
    expect(await outcome(sidecar)).toBe('502 upstream_invalid_response')
  })

  it.each<[string, (socket: Socket) => void, string]>([
    [
      'closes within a body of known length',
      (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart'),
      'upstream_reset',
    ],
    [
      'closes within chunks',
      (socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n'),
      'upstream_reset',
    ],
    [
      'sends a broken chunk',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n')
        setTimeout(() => socket.write('xyz\r\n'), 50)
      },
      'upstream_invalid_response',
    ],
    ['falls silent within a body', write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart'), 'upstream_timeout'],
  ])('that %s: the response is cut, never completed', async (_what, answer, code) => {
    const { sidecar } = await backend(answer)
    const response = await send(sidecar)
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow()
    await expect.poll(() => sidecar.lastRequest()['code']).toBe(code)
  })

  it('that sends a stream of events may be silent in between for longer than others', async () => {
    for (const type of ['text/event-stream', 'Text/Event-Stream;charset=utf-8', 'application/grpc-web+proto']) {
      const { sidecar } = await backend((socket) => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\n\r\ndata: first\n\n`)
        setTimeout(() => socket.end('data: second\n\n'), 2_500)
      })
      expect(await (await send(sidecar)).text()).toBe('data: first\n\ndata: second\n\n')
    }
    const { sidecar } = await backend(write('HTTP/1.1 200 OK\r\nContent-Type: text/event-streams\r\n\r\npart'))
    await expect((await send(sidecar)).text()).rejects.toThrow()
    await expect.poll(() => sidecar.lastRequest()).toMatchObject({ code: 'upstream_timeout' })
  })

  it('that sends more than it announced: the rest never becomes the next answer', async () => {
    const poison = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'
    const { sidecar } = await backend(write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok${poison}`), ok)
    for (let i = 0; i < 3; i += 1) expect(await (await send(sidecar)).text()).toBe('ok')
  })

  it('that speaks unasked on an idle connection: it is not used again', async () => {
    const { sidecar, upstream } = await backend((socket) => {
      ok(socket)
      setTimeout(() => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'), 20)
    }, ok)
    expect(await (await send(sidecar)).text()).toBe('ok')
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await (await send(sidecar)).text()).toBe('ok')
    expect(upstream.received()).not.toContain('poison')
  })

  it('that sends early hints: links travel on, once the gate said yes', async () => {
    const { sidecar } = await backend(
      write(
        'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Not: this\r\n\r\n' +
          'HTTP/1.1 103 Early Hints\r\nLink: what is this\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      ),
    )
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write(`GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${issuer.signAccessToken()}\r\n\r\n`)
    await expect.poll(received).toMatch(/ok$/)
    expect(received()).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK/)
    socket.destroy()
  })

  it('that sends 103 first: the answer is the one that follows', async () => {
    const { sidecar } = await backend(
      write('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
    )
    expect(await (await send(sidecar)).text()).toBe('ok')
  })

  it('whose response ends with the connection is read to the end', async () => {
    const { sidecar } = await backend((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nuntil the end'))
    expect(await (await send(sidecar)).text()).toBe('until the end')
  })

  it('that is gone for good after it worked, and comes back', async () => {
    const upstream = await startUpstream()
    const sidecar = await sidecarFor(upstream.url)
    expect((await send(sidecar)).status).toBe(200)
    await upstream.stop()
    expect((await send(sidecar)).status).toBe(502)
    const again = await startUpstream(undefined, upstream.port)
    stops.push(() => again.stop())
    expect((await send(sidecar)).status).toBe(200)
  })
})

describe('a connection that the upstream closes just as it is used again', () => {
  const once = (socket: Socket) => ok(socket)
  it('costs a GET nothing: it is sent once more', async () => {
    const { sidecar, upstream } = await backend(once, (socket) => socket.destroy(), ok)
    expect((await send(sidecar)).status).toBe(200)
    expect((await send(sidecar)).status).toBe(200)
    expect(upstream.received().match(/GET \/a /g)).toHaveLength(3)
  })

  it('costs a POST its answer: it may have been carried out', async () => {
    const { sidecar, upstream } = await backend(once, (socket) => socket.destroy(), ok)
    expect((await send(sidecar)).status).toBe(200)
    expect(await outcome(sidecar, { method: 'POST', body: 'x' })).toBe('502 upstream_reset')
    expect(upstream.received().match(/POST \/a /g)).toHaveLength(1)
  })

  it('is not tried once more when a part of the answer had come', async () => {
    const parts = ['HTTP/1.1 2', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n']
    for (const part of parts) {
      const { sidecar, upstream } = await backend(once, (socket) => socket.end(part), ok)
      expect((await send(sidecar)).status).toBe(200)
      expect(await outcome(sidecar)).toBe('502 upstream_reset')
      expect(upstream.received().match(/GET \/a /g)).toHaveLength(2)
    }
  })

  it('is tried once more, not for ever', async () => {
    const { sidecar, upstream } = await backend(once, (socket) => socket.destroy())
    expect((await send(sidecar)).status).toBe(200)
    expect(await outcome(sidecar)).toBe('502 upstream_reset')
    expect(upstream.received().match(/GET \/a /g)).toHaveLength(3)
  })
})

describe('a connection about which the upstream changes its mind in the turn in which a request is put on it', () => {
  const POISON = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'

  /** Puts a request on the connection that the one before left idle, and lets the upstream act before it has left. */
  async function meet(act: (idle: Socket) => void, method: string): Promise<{ answer: string; requests: string[] }> {
    const used: Socket[] = []
    const answer = (socket: Socket) => {
      used.push(socket)
      ok(socket)
    }
    const { sidecar, upstream } = await backend(answer)
    const { socket, received } = await openRaw(sidecar.proxyPort)
    const token = issuer.signAccessToken()
    const ask = (line: string) => socket.write(rawRequest(line, `Authorization: Bearer ${token}`, 'Content-Length: 0'))
    ask('GET /a')
    await expect.poll(received).toMatch(/ok$/)
    const first = received().length
    ask(`${method} /b`)
    act(used[0] as Socket)
    await expect.poll(() => received().slice(first)).toMatch(/\r\n\r\n./s)
    socket.destroy()
    expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 200 })
    expect(new Set(used).size).toBe(2)
    return { answer: received().slice(first), requests: upstream.received().match(/^[A-Z]+ \/b /gm) ?? [] }
  }

  it.each(['GET', 'POST'])('closed: a %s is sent on another, once, since nothing of it had left', async (method) => {
    const { answer, requests } = await meet((idle) => idle.end(), method)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK[^]*ok$/)
    expect(requests).toEqual([`${method} /b `])
  })

  it.each(['GET', 'POST'])('spoke unasked: that is no answer to a %s', async (method) => {
    const { answer, requests } = await meet((idle) => idle.write(POISON), method)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK[^]*ok$/)
    expect(requests).toEqual([`${method} /b `])
  })
})

describe('the caller leaves', () => {
  const request = (method: string, ...fields: string[]) =>
    [
      `${method} /a HTTP/1.1`,
      'Host: api.test',
      `Authorization: Bearer ${issuer.signAccessToken()}`,
      ...fields,
      '',
      '',
    ].join('\r\n')

  async function expectGone(sidecar: FakeSidecar, status: number) {
    await expect.poll(() => sidecar.lastRequest(), { timeout: 10_000 }).toMatchObject({ code: 'caller_gone', status })
    expect(sidecar.logLines().filter(({ msg }) => msg === 'request')).toHaveLength(1)
    expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/)
  }

  it('before the answer: the upstream is told', async () => {
    const states: string[] = []
    const sidecar = await nodeBackend((_request, response) => response.on('close', () => states.push('closed')))
    const { socket } = await openRaw(sidecar.proxyPort)
    socket.write(request('GET'))
    await expect.poll(async () => /in_flight 1/.test(await sidecar.metrics())).toBe(true)
    socket.destroy()
    await expect.poll(() => states, { timeout: 10_000 }).toEqual(['closed'])
    await expectGone(sidecar, 499)
  })

  it('within the answer: the upstream stops', async () => {
    let closed = false
    const sidecar = await nodeBackend((_request, response) => {
      response.on('close', () => (closed = true))
      const timer = setInterval(() => response.write('x'.repeat(10_000)), 5)
      response.on('close', () => clearInterval(timer))
    })
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write(request('GET'))
    await expect.poll(() => received().length, { timeout: 10_000 }).toBeGreaterThan(20_000)
    socket.destroy()
    await expect.poll(() => closed, { timeout: 10_000 }).toBe(true)
    await expectGone(sidecar, 499)
  })

  it('within the upload: the upstream sees an aborted request, not a short one', async () => {
    const seen: string[] = []
    const sidecar = await nodeBackend((incoming) => {
      incoming.on('data', () => seen.push('data'))
      incoming.on('end', () => seen.push('end'))
      incoming.on('error', () => seen.push('error'))
    })
    for (const [field, part] of [
      ['Content-Length: 1000', 'part'],
      ['Transfer-Encoding: chunked', '4\r\npart\r\n'],
    ] as const) {
      seen.splice(0)
      const { socket } = await openRaw(sidecar.proxyPort)
      socket.write(request('POST', field) + part)
      await expect.poll(() => seen, { timeout: 10_000 }).toEqual(['data'])
      socket.destroy()
      await expect.poll(() => seen, { timeout: 10_000 }).toEqual(['data', 'error'])
      await expect.poll(() => sidecar.lastRequest(), { timeout: 10_000 }).toMatchObject({ code: 'caller_gone' })
    }
    // Each was told of once.
    expect(sidecar.logLines().filter(({ msg }) => msg === 'request')).toHaveLength(2)
    expect(await sidecar.metrics()).not.toContain('code="header_invalid"')
  })
})
