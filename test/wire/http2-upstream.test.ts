import { createHash } from 'node:crypto'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openCaller, type Http2Caller, type Http2RequestOptions } from '../fakes/http2-caller.ts'
import {
  answerEcho,
  readBody,
  startHttp2Upstream,
  type FakeHttp2Upstream,
  type Http2Handler,
} from '../fakes/http2-upstream.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'

let issuer: AuthorizationServer
let upstream: FakeHttp2Upstream
let sidecar: FakeSidecar
let caller: Http2Caller
/** What the backend does instead of answering with what it saw. */
let behave: Http2Handler | undefined

const startThrough = (url: string, more: Readonly<Record<string, unknown>> = {}) =>
  startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: { url, ...more },
    },
  })

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startHttp2Upstream((stream, recorded) => (behave ?? answerEcho)(stream, recorded))
  sidecar = await startThrough(upstream.url)
  await sidecar.ready()
  caller = await openCaller(sidecar.proxyPort)
})

afterEach(() => {
  behave = undefined
  upstream.requests.splice(0)
})
afterAll(async () => {
  caller.close()
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
})

const get = (path: string, options: Http2RequestOptions = {}) =>
  caller.get(path, { token: issuer.signAccessToken(), ...options })

const fetchThrough = (path: string, init: RequestInit = {}, through = sidecar) =>
  fetch(through.proxy + path, {
    ...init,
    headers: { authorization: `Bearer ${issuer.signAccessToken()}`, ...init.headers },
  })

describe('a backend behind h2c://', () => {
  it('gets a request of HTTP/1.1 as one of HTTP/2', async () => {
    const token = issuer.signAccessToken({ sub: 'user-7' })
    const response = await fetchThrough('/orders?x=1', { headers: { authorization: `Bearer ${token}`, 'X-Odd': 'a' } })
    expect(response.status).toBe(200)
    const [seen] = upstream.requests
    const host = `127.0.0.1:${sidecar.proxyPort}`
    expect(seen?.headers).toMatchObject({
      ':method': 'GET',
      ':scheme': 'http',
      ':path': '/orders?x=1',
      ':authority': host,
      'x-odd': 'a',
      'x-auth-subject': 'user-7',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': host,
    })
    expect(
      Object.keys(seen?.headers ?? {}).filter((name) => /^(host|connection|authorization|te)$/.test(name)),
    ).toEqual([])
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 200 }), 5_000)
  })

  it('gets a request of HTTP/2 as it is', async () => {
    const answer = await get('/orders', { headers: { 'x-odd': ['a', 'b'] } })
    expect(answer).toMatchObject({ status: 200, rstCode: 0 })
    expect(upstream.requests[0]?.headers).toMatchObject({ ':authority': `127.0.0.1:${sidecar.proxyPort}` })
    expect(upstream.requests[0]?.raw.filter((_, i, all) => all[i - 1] === 'x-odd')).toEqual(['a', 'b'])
  })

  it('gets a header just below the limit', async () => {
    const big = 'x'.repeat(30_000)
    await get('/', { headers: { 'x-big': big } })
    expect(upstream.requests[0]?.headers['x-big']?.length).toBe(big.length)
  })

  it('is spoken to on one connection, however many requests there are', async () => {
    const token = issuer.signAccessToken()
    const answers = await Promise.all(Array.from({ length: 150 }, (_, i) => get(`/orders/${i}`, { token })))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(new Set(upstream.requests.map(({ connection }) => connection)).size).toBe(1)
  })

  it.each([
    ['HTTP/1.1', 'known', true],
    ['HTTP/1.1', 'unknown', false],
    ['HTTP/2', 'known', true],
    ['HTTP/2', 'unknown', false],
  ])('gets a body over %s of %s length byte for byte', async (version, _length, known) => {
    const body = Buffer.alloc(2_000_000, 'a mouthful of bytes ')
    if (version === 'HTTP/2') {
      await get('/', { body, headers: known ? { 'content-length': String(body.length) } : {} })
    } else {
      const stream = new ReadableStream({
        start(controller) {
          controller.enqueue(body)
          controller.close()
        },
      })
      await fetchThrough('/', { method: 'POST', body: known ? body : stream, duplex: 'half' })
    }
    const [seen] = upstream.requests
    expect(seen?.state).toBe('complete')
    expect(digest(seen!.body)).toBe(digest(body))
    expect(seen?.headers['content-length']).toBe(known ? String(body.length) : undefined)
    expect(seen?.headers).not.toHaveProperty('transfer-encoding')
  })

  it('gets the trailers of a request, but none that it could take for ours', async () => {
    await get('/', {
      body: 'the body',
      trailers: {
        'x-sum': '7',
        'x-auth-subject': 'admin',
        x_auth_subject: 'admin',
        authorization: 'Bearer x',
        te: 'trailers',
      },
    })
    expect(upstream.requests[0]?.body.toString()).toBe('the body')
    expect(upstream.requests[0]?.trailers).toEqual(['x-sum', '7'])
  })

  it('has its response carried to HTTP/1.1', async () => {
    behave = (stream) => {
      stream.respond({ ':status': 418, 'set-cookie': ['a=1', 'b=2'], 'x-odd': 'caf\xe9' })
      stream.end('short and stout')
    }
    const response = await fetchThrough('/')
    expect(response.status).toBe(418)
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2'])
    expect(response.headers.get('x-odd')).toBe('café')
    expect(await response.text()).toBe('short and stout')
  })

  it('has its trailers carried to callers that can take them', async () => {
    behave = (stream) => {
      stream.respond({ ':status': 200 }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': ['7', '8'] }))
      stream.end('the body')
    }
    const answer = await get('/')
    expect(answer.body.toString()).toBe('the body')
    expect(answer.trailers).toMatchObject({ 'x-sum': '7, 8' })
    const asked = await collectHttp1({ te: 'trailers' })
    expect(asked).toMatchObject({ body: 'the body', trailers: ['x-sum', '7', 'x-sum', '8'] })
    expect(await collectHttp1({})).toMatchObject({ body: 'the body', trailers: [] })
  })

  it.each([
    ['HEAD', 200],
    ['GET', 204],
    ['GET', 304],
  ])('answers %s with %i to both kinds of callers', async (method, status) => {
    behave = (stream) => stream.respond({ ':status': status, etag: '"x"' }, { endStream: true })
    expect(await get('/', { method })).toMatchObject({ status, rstCode: 0, headers: { etag: '"x"' } })
    const response = await fetchThrough('/', { method })
    expect([response.status, response.headers.get('etag'), await response.text()]).toEqual([status, '"x"', ''])
  })

  it('may answer before the body is there, and need not read the rest', async () => {
    behave = (stream) => {
      stream.respond({ ':status': 413 })
      stream.end('no!')
    }
    const { stream, answer } = caller.start('/upload', { token: issuer.signAccessToken(), body: 'open' })
    stream.write('the beginning')
    expect(await answer).toMatchObject({ status: 413, body: Buffer.from('no!'), rstCode: 0 })
    await vi.waitFor(() => expect(upstream.requests[0]?.state).not.toBe('open'), 5_000)
  })

  it('that reads no bodies has room for the next request after each', async () => {
    // It resets what it does not read, without an error, and takes one stream at a time.
    const hasty = await startHttp2Upstream(
      (stream) => {
        stream.respond({ ':status': 413 })
        stream.end('no!')
      },
      { maxConcurrentStreams: 1 },
    )
    const through = await startThrough(hasty.url, { connections: 1 })
    await through.ready()
    const other = await openCaller(through.proxyPort)
    const token = issuer.signAccessToken()
    for (let i = 0; i < 5; i += 1) {
      const { stream, answer } = other.start('/upload', { token, body: 'open' })
      stream.end(Buffer.alloc(2_000_000))
      expect(await answer).toMatchObject({ status: 413, body: Buffer.from('no!') })
    }
    other.close()
    await through.stop()
    await hasty.stop()
  })

  it('may talk while it listens', async () => {
    behave = (stream) => {
      stream.respond({ ':status': 200 })
      stream.on('data', (chunk: Buffer) => void stream.write(chunk.toString().toUpperCase()))
      stream.on('end', () => stream.end())
    }
    const { stream, answer } = caller.start('/echo', { token: issuer.signAccessToken(), body: 'open' })
    for (const word of ['one', 'two', 'three']) {
      stream.write(word)
      const heard = await new Promise((resolve) => stream.once('data', resolve))
      expect(String(heard)).toBe(word.toUpperCase())
    }
    stream.end()
    expect((await answer).rstCode).toBe(0)
  })
})

describe('when nobody takes bytes', () => {
  it('from the backend, the backend has to wait', async () => {
    const body = Buffer.alloc(8_000_000, 'a mouthful of bytes ')
    let written = 0
    behave = (stream) => {
      stream.respond({ ':status': 200 })
      const more = () => {
        while (written < body.length) {
          const chunk = body.subarray(written, written + 50_000)
          written += chunk.length
          if (!stream.write(chunk)) return void stream.once('drain', more)
        }
        stream.end()
      }
      more()
    }
    const { stream, answer } = caller.start('/download', { token: issuer.signAccessToken() })
    stream.pause()
    await settles(() => written)
    expect(written).toBeGreaterThan(0)
    expect(written).toBeLessThan(body.length)
    // Others on the same two connections are served meanwhile.
    behave = undefined
    expect((await get('/orders')).status).toBe(200)
    stream.resume()
    expect((await answer).body.equals(body)).toBe(true)
  })

  it('from the caller, the caller has to wait', async () => {
    let read: (() => void) | undefined
    behave = (stream, recorded) => {
      read = () => {
        answerEcho(stream, recorded)
        stream.resume()
      }
      stream.pause()
    }
    const body = Buffer.alloc(8_000_000, 'a mouthful of bytes ')
    const { stream, answer } = caller.start('/upload', { token: issuer.signAccessToken(), body: 'open' })
    let taken = 0
    const more = () => {
      while (taken < body.length) {
        const chunk = body.subarray(taken, taken + 50_000)
        taken += chunk.length
        if (!stream.write(chunk)) return void stream.once('drain', more)
      }
      stream.end()
    }
    more()
    await settles(() => taken)
    expect(taken).toBeLessThan(body.length)
    behave = undefined
    expect((await get('/orders')).status).toBe(200)
    read?.()
    expect((await answer).status).toBe(200)
    expect(upstream.requests[0]?.body.equals(body)).toBe(true)
  })
})

describe('when the caller leaves', () => {
  it.each(['while it waits', 'while it reads', 'while it sends'])('%s, the backend is told', async (when) => {
    behave = (stream, recorded) => {
      if (when === 'while it reads') {
        stream.respond({ ':status': 200 })
        stream.write('the beginning')
      } else readBody(stream, recorded, () => undefined)
    }
    const body = when === 'while it sends' ? 'open' : undefined
    const { stream } = caller.start('/slow', { token: issuer.signAccessToken(), body })
    const begun = new Promise((resolve) => stream.once('data', resolve))
    if (body === 'open') stream.write('the beginning')
    await vi.waitFor(() => expect(upstream.requests).toHaveLength(1), 5_000)
    if (when === 'while it reads') await begun
    stream.close(8)
    await vi.waitFor(() => expect(upstream.requests[0]?.state).toBe('aborted'), 5_000)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'caller_gone', status: 499 }), 5_000)
    // The connection to the backend serves on.
    behave = undefined
    expect((await get('/orders')).status).toBe(200)
    expect(upstream.requests[0]?.connection).toBe(upstream.requests[1]?.connection)
  })
})

describe('when the backend', () => {
  it('refuses a stream unseen, the request is sent once more', async () => {
    behave = (stream, recorded) => {
      if (upstream.requests.length === 1) stream.close(7)
      else answerEcho(stream, recorded)
    }
    expect((await get('/orders', { method: 'POST' })).status).toBe(200)
    expect(upstream.requests).toHaveLength(2)
    upstream.requests.splice(0)
    behave = (stream) => stream.close(7)
    expect((await get('/orders')).status).toBe(502)
    expect(upstream.requests).toHaveLength(2)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'upstream_reset' }), 5_000)
  })

  it.each([2, 8])('resets a stream with %i before the header: 502', async (code) => {
    behave = (stream) => stream.close(code)
    const answer = await get('/orders', { body: 'x' })
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.body.toString())).toMatchObject({ code: 'upstream_reset' })
    expect(upstream.requests).toHaveLength(1)
  })

  it.each([0, 2, 8])('resets a stream with %i in the middle of the body, the response is cut', async (code) => {
    behave = (stream) => {
      // Waiting for trailers, the library does not end the stream before it resets it.
      stream.respond({ ':status': 200, 'content-length': '100' }, { waitForTrailers: true })
      stream.write('the beginning')
      setTimeout(() => (code === 2 ? stream.destroy(new Error('broken')) : stream.close(code)), 50)
    }
    expect(await get('/')).toMatchObject({ status: 200, rstCode: 2, body: Buffer.from('the beginning') })
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'upstream_reset', status: 200 }), 5_000)
    const response = await fetchThrough('/')
    await expect(response.text()).rejects.toThrow()
  })

  it('says goodbye, streams in flight finish and further ones go elsewhere', async () => {
    behave = (stream, recorded) => {
      if (recorded.path !== '/slow') return answerEcho(stream, recorded)
      setTimeout(() => {
        stream.respond({ ':status': 200 })
        stream.end('at last')
      }, 300)
    }
    const slow = get('/slow')
    await vi.waitFor(() => expect(upstream.requests).toHaveLength(1), 5_000)
    for (const session of upstream.sessions) session.close()
    await vi.waitFor(async () => {
      await get('/orders')
      expect(upstream.requests.at(-1)?.connection).not.toBe(upstream.requests[0]?.connection)
    }, 5_000)
    expect(await slow).toMatchObject({ status: 200, body: Buffer.from('at last'), rstCode: 0 })
    expect(upstream.requests.slice(1).every(({ state }) => state === 'complete')).toBe(true)
  })

  it('closes the connection while it is idle, the next request opens another', async () => {
    await get('/orders')
    for (const session of upstream.sessions) session.destroy()
    await vi.waitFor(() => expect(upstream.sessions.size).toBe(0), 5_000)
    expect((await get('/orders', { body: 'x' })).status).toBe(200)
    expect(upstream.requests[1]?.connection).toBe((upstream.requests[0]?.connection ?? 0) + 1)
  })

  it('sends a hint before, the response is carried', async () => {
    behave = (stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a>' })
      stream.respond({ ':status': 200 })
      stream.end('after a hint')
    }
    expect(await get('/')).toMatchObject({ status: 200, body: Buffer.from('after a hint') })
  })

  it('lets a request wait for too long: 504', async () => {
    const slow = await startThrough(upstream.url, { response_timeout: '1s', idle_timeout: '1s' })
    await slow.ready()
    behave = () => undefined
    const waiting = await fetchThrough('/', {}, slow)
    expect([waiting.status, ((await waiting.json()) as { code: string }).code]).toEqual([504, 'upstream_timeout'])
    behave = (stream) => {
      stream.respond({ ':status': 200 })
      stream.write('the beginning')
    }
    const silent = await fetchThrough('/', {}, slow)
    await expect(silent.text()).rejects.toThrow()
    const cut = { code: 'upstream_timeout', status: 200, detail: { cause: 'idle' } }
    await vi.waitFor(() => expect(slow.lastRequest()).toMatchObject(cut), 5_000)
    await vi.waitFor(() => expect(upstream.requests.map(({ state }) => state)).toEqual(['aborted', 'aborted']), 5_000)
    await slow.stop()
  })

  it('gets a body that comes too slowly: 408', async () => {
    const impatient = await startSidecar({
      config: {
        issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
        upstream: upstream.url,
        limits: { body_timeout: '1s' },
      },
    })
    await impatient.ready()
    const other = await openCaller(impatient.proxyPort)
    const { stream, answer } = other.start('/upload', { token: issuer.signAccessToken(), body: 'open' })
    stream.write('the beginning')
    expect(await answer).toMatchObject({ status: 408, rstCode: 0 })
    await vi.waitFor(
      () => expect(impatient.lastRequest()).toMatchObject({ code: 'request_timeout', detail: { reason: 'body' } }),
      5_000,
    )
    await vi.waitFor(() => expect(upstream.requests[0]?.state).toBe('aborted'), 5_000)
    other.close()
    await impatient.stop()
  })

  it('takes few streams at a time, requests go over more connections, and wait when those are full', async () => {
    const held: (() => void)[] = []
    const narrow = await startHttp2Upstream((stream, recorded) => void held.push(() => answerEcho(stream, recorded)), {
      maxConcurrentStreams: 2,
    })
    const through = await startThrough(narrow.url, { connections: 2 })
    await through.ready()
    // The first request learns how many the backend takes.
    const first = fetchThrough('/first', {}, through)
    await vi.waitFor(() => expect(held).toHaveLength(1), 5_000)
    held.pop()?.()
    expect((await first).status).toBe(200)
    const answers = Promise.all(Array.from({ length: 7 }, (_, i) => fetchThrough(`/${i}`, {}, through)))
    await vi.waitFor(() => expect(held.length).toBeGreaterThanOrEqual(4), 5_000)
    while (narrow.requests.some(({ state }) => state === 'open') || narrow.requests.length < 8) {
      held.pop()?.()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    expect((await answers).map(({ status }) => status)).toEqual(Array.from({ length: 7 }, () => 200))
    expect(new Set(narrow.requests.map(({ connection }) => connection))).toEqual(new Set([1, 2]))
    await through.stop()
    await narrow.stop()
  })
})

describe('streams to the backend that are all taken', () => {
  it('by bodies that do not end make others wait no longer than for a response: 504', async () => {
    const narrow = await startHttp2Upstream(
      (stream) => {
        stream.respond({ ':status': 200 })
        stream.write('the beginning')
      },
      { maxConcurrentStreams: 1 },
    )
    const through = await startThrough(narrow.url, { connections: 1, response_timeout: '1s' })
    await through.ready()
    const taken = await fetchThrough('/taken', {}, through)
    expect(taken.status).toBe(200)
    const other = await openCaller(through.proxyPort)
    const token = issuer.signAccessToken()
    const gone = other.start('/gone', { token })
    gone.stream.on('ready', () => setTimeout(() => gone.stream.close(8), 100))
    const [late, ofHttp2] = await Promise.all([fetchThrough('/late', {}, through), other.get('/late', { token })])
    expect([late.status, ((await late.json()) as { code: string }).code]).toEqual([504, 'upstream_timeout'])
    expect(ofHttp2.status).toBe(504)
    expect(through.lastRequest()).toMatchObject({ detail: { cause: 'no stream free' } })
    expect(narrow.requests.map(({ path }) => path)).toEqual(['/taken'])
    // As soon as there is room, others are served.
    await taken.body?.cancel()
    const next = await fetchThrough('/next', {}, through)
    expect(next.status).toBe(200)
    await next.body?.cancel()
    other.close()
    await through.stop()
    await narrow.stop()
  })
})

describe('without a backend that speaks HTTP/2', () => {
  it('there: 502', async () => {
    const gone = await startHttp2Upstream()
    await gone.stop()
    const through = await startThrough(gone.url)
    await through.ready()
    const response = await fetchThrough('/', { method: 'POST', body: 'x' }, through)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ code: 'upstream_unreachable' })
    await vi.waitFor(() => expect(through.lastRequest()).toMatchObject({ detail: { cause: 'ECONNREFUSED' } }), 5_000)
    // As soon as it is there, it is used.
    const back = await startHttp2Upstream(undefined, {}, gone.port)
    expect((await fetchThrough('/', {}, through)).status).toBe(200)
    await through.stop()
    await back.stop()
  })

  it.each<[string, string, number, string]>([
    ['HTTP/1.1', 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n', 502, 'upstream_invalid_response'],
    ['nothing', '', 504, 'upstream_timeout'],
  ])('but %s: a clear code', async (_name, says, status, code) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.on('data', () => says !== '' && socket.end(says))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const url = `h2c://127.0.0.1:${(server.address() as AddressInfo).port}`
    const through = await startThrough(url, { response_timeout: '1s' })
    await through.ready()
    const response = await fetchThrough('/', {}, through)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ code })
    await through.stop()
    await new Promise((resolve) => server.close(resolve))
  })
})

function digest(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex')
}

/** Waits until a count that rises stands still. */
async function settles(count: () => number): Promise<void> {
  let before = -1
  await vi.waitFor(
    () => {
      const now = count()
      const stands = now === before && now > 0
      before = now
      expect(stands).toBe(true)
    },
    { timeout: 15_000, interval: 300 },
  )
}

/** A response over HTTP/1.1 with its trailers. */
function collectHttp1(headers: Record<string, string>): Promise<{ body: string; trailers: string[] }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      sidecar.proxy,
      { headers: { authorization: `Bearer ${issuer.signAccessToken()}`, ...headers } },
      (response: IncomingMessage) => {
        let body = ''
        response.on('data', (chunk) => (body += String(chunk)))
        response.on('end', () => resolve({ body, trailers: response.rawTrailers }))
      },
    )
    request.on('error', reject)
    request.end()
  })
}
