import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openCaller, type Http2Answer, type Http2Caller, type Http2RequestOptions } from '../fakes/http2-caller.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { record, startUpstream, type FakeUpstream, type Handler } from '../fakes/upstream.ts'

const run = promisify(execFile)

let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar
let caller: Http2Caller
/** What the backend does instead of answering with what it saw. */
let behave: Handler | undefined

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((request, response, recorded) => {
    if (behave !== undefined) return behave(request, response, recorded)
    record(request, recorded, () => {
      const body = JSON.stringify({ method: recorded.method, url: recorded.url, headers: recorded.headers })
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
    })
  })
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      rules: [
        { name: 'public', prefix: ['/public'], access: 'public' },
        { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
      ],
      limits: { concurrent_streams: 100 },
    },
  })
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

const json = ({ body }: Http2Answer) => JSON.parse(body.toString()) as Record<string, unknown>

describe('a caller that speaks HTTP/2 by prior knowledge', () => {
  it('gets through on the port of HTTP/1.1, with the claims as headers and without the token', async () => {
    const answer = await get('/orders?x=1', { token: issuer.signAccessToken({ sub: 'user-7' }) })
    expect(answer).toMatchObject({ status: 200, rstCode: 0 })
    const host = `127.0.0.1:${sidecar.proxyPort}`
    const [seen] = upstream.requests
    expect(seen).toMatchObject({ method: 'GET', url: '/orders?x=1' })
    expect(seen?.headers).toMatchObject({
      host,
      'x-auth-subject': 'user-7',
      'x-auth-issuer': issuer.issuer,
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': host,
    })
    expect(Object.keys(seen?.headers ?? {}).filter((name) => /^:|^authorization|^transfer/.test(name))).toEqual([])
    expect(sidecar.lastRequest()).toMatchObject({ rule: 'default', code: 'ok', status: 200, path: '/orders' })
    const token = issuer.signAccessToken()
    expect((await fetch(sidecar.proxy, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200)
  })

  it('may be curl', async () => {
    const { stdout: version } = await run('curl', ['--version'])
    if (!version.includes('HTTP2')) return console.log('skipped: this curl does not speak HTTP/2')
    const { stdout } = await run('curl', [
      '-sS',
      '--http2-prior-knowledge',
      ...['-H', `authorization: Bearer ${issuer.signAccessToken()}`],
      ...['-d', 'a body'],
      ...['-w', ' %{http_version} %{http_code}'],
      `${sidecar.proxy}/orders`,
    ])
    expect(stdout).toMatch(/"method":"POST".* 2 200$/)
    expect(upstream.requests[0]).toMatchObject({ bodyBytes: 6, headers: { 'content-length': '6' } })
  })

  it.each<[string, string, string[]]>([
    ['nghttp', 'nghttp', ['-v', '-n']],
    ['h2load', 'h2load', ['-n', '200', '-c', '4', '-m', '20']],
  ])('may be %s', async (_name, command, flags) => {
    const installed = await run(command, ['--version']).catch(() => undefined)
    if (installed === undefined) return console.log(`skipped: ${command} is not installed`)
    const field = `authorization: Bearer ${issuer.signAccessToken()}`
    const { stdout } = await run(command, [...flags, '-H', field, `${sidecar.proxy}/orders`])
    if (command === 'nghttp') expect(stdout).toMatch(/:status: 200/)
    else expect(stdout).toMatch(/200 succeeded, 0 failed, 0 errored, 0 timeout/)
    return undefined
  })

  it('may send many requests at a time on one connection', async () => {
    const token = issuer.signAccessToken()
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => get(`/orders/${i}`, { token })))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(answers.map((answer) => json(answer)['url'])).toEqual(answers.map((_, i) => `/orders/${i}`))
  })

  it('gets the response as the backend sent it, but for what belongs to the connection', async () => {
    behave = (_request, response) => {
      response.writeHead(418, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Odd', 'caf\xe9', 'Connection', 'x-gone'])
      response.end('short and stout')
    }
    const answer = await get('/')
    expect(answer.status).toBe(418)
    expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2'])
    expect(answer.headers['x-odd']).toBe('caf\xe9')
    expect(answer.body.toString()).toBe('short and stout')
    expect(
      Object.keys(answer.headers).filter((name) => /^(connection|keep-alive|transfer-encoding)$/.test(name)),
    ).toEqual([])
  })

  it.each([
    ['HEAD', 200],
    ['GET', 204],
    ['GET', 304],
    ['GET', 205],
  ])('gets no body in answer to %s with %i', async (method, status) => {
    behave = (_request, response) => void response.writeHead(status, { etag: '"x"' }).end()
    const answer = await get('/', { method })
    expect(answer).toMatchObject({ status, rstCode: 0 })
    expect(answer.headers['etag']).toBe('"x"')
    expect(answer.body).toHaveLength(0)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ method, status, code: 'ok' }), 5_000)
  })

  it('sends cookies in pieces, and the backend gets them as one', async () => {
    await get('/', { headers: { cookie: ['a=1', 'b=2', 'c=3'] } })
    expect(upstream.requests[0]?.rawHeaders.filter((_, i, all) => all[i - 1] === 'cookie')).toEqual(['a=1; b=2; c=3'])
  })
})

describe('a body', () => {
  it.each([
    ['of known length', { 'content-length': '3000000' }, '3000000'],
    ['of unknown length', {}, 'chunked'],
  ])('%s arrives byte for byte', async (_name, headers, framing) => {
    const body = Buffer.alloc(3_000_000, 'a mouthful of bytes ')
    const answer = await get('/orders', { body, headers })
    expect(answer.status).toBe(200)
    expect(upstream.requests[0]).toMatchObject({
      bodyBytes: body.length,
      bodySha256: createHash('sha256').update(body).digest('hex'),
    })
    const { headers: seen } = upstream.requests[0] as FakeUpstream['requests'][number]
    expect(seen['content-length'] ?? seen['transfer-encoding']).toBe(framing)
  })

  it('of a response arrives byte for byte, however slowly it is read', async () => {
    const body = Buffer.alloc(6_000_000, 'a mouthful of bytes ')
    let written = 0
    behave = (_request, response) => {
      const more = () => {
        while (written < body.length) {
          const chunk = body.subarray(written, written + 50_000)
          written += chunk.length
          if (!response.write(chunk)) return void response.once('drain', more)
        }
        response.end()
      }
      more()
    }
    const { stream, answer } = caller.start('/download', { token: issuer.signAccessToken() })
    stream.pause()
    // What is on its way fills the windows and the buffers of the sockets, and then the backend has to wait.
    let before = -1
    await vi.waitFor(
      () => {
        const stands = written === before
        before = written
        expect(stands).toBe(true)
      },
      { timeout: 15_000, interval: 300 },
    )
    expect(written).toBeGreaterThan(0)
    expect(written).toBeLessThan(body.length)
    stream.resume()
    expect((await answer).body.equals(body)).toBe(true)
  })

  it('that nobody waits for is called off once the response is complete', async () => {
    behave = (_request, response) => void response.writeHead(413, { 'content-length': '3' }).end('no!')
    const { stream, answer } = caller.start('/upload', { token: issuer.signAccessToken(), body: 'open' })
    stream.write('the beginning')
    expect(await answer).toMatchObject({ status: 413, body: Buffer.from('no!'), rstCode: 0 })
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 413 }), 5_000)
  })

  it('is asked for only when the gate has said yes', async () => {
    const refused = caller.start('/orders', { body: 'open', headers: { expect: '100-continue' } })
    const asked = vi.fn()
    refused.stream.on('continue', asked)
    expect((await refused.answer).status).toBe(401)
    expect(asked).not.toHaveBeenCalled()
    const permitted = caller.start('/orders', {
      token: issuer.signAccessToken(),
      body: 'open',
      headers: { expect: '100-continue' },
    })
    await new Promise((resolve) => permitted.stream.once('continue', resolve))
    permitted.stream.end('the body')
    expect((await permitted.answer).status).toBe(200)
    expect(upstream.requests).toHaveLength(1)
    expect(upstream.requests[0]).toMatchObject({ bodyBytes: 8 })
    expect(upstream.requests[0]?.headers).not.toHaveProperty('expect')
  })
})

describe('trailers', () => {
  const trailers = { 'x-sum': '7', 'x-auth-subject': 'admin', authorization: 'Bearer x', 'x-forwarded-for': '10.0.0.1' }
  /** Answers with trailers, and with those that came in its body. */
  const withTrailers: Handler = (incoming, response) => {
    incoming.resume().on('end', () => {
      response.addTrailers([
        ['X-Check', 'a'],
        ['x-check', 'b'],
        ['content-length', '3'],
      ])
      response.write(JSON.stringify(incoming.rawTrailers))
      response.end()
    })
  }

  it('of HTTP/1.1 reach a caller of HTTP/2 and the other way round, but none that could be taken for ours', async () => {
    behave = withTrailers
    const answer = await get('/', { body: 'the body', trailers })
    expect(answer.trailers).toMatchObject({ 'x-check': 'a, b' })
    expect(answer.trailers).not.toHaveProperty('content-length')
    expect(JSON.parse(answer.body.toString())).toEqual(['x-sum', '7'])
  })

  it.each([
    ['that asks for them', { te: 'trailers' }, ['X-Check', 'a', 'x-check', 'b']],
    ['that does not', {}, []],
  ])('reach a caller of HTTP/1.1 %s as it wants', async (_name, headers, expected) => {
    behave = withTrailers
    const answer = await new Promise<{ body: string; trailers: string[] }>((resolve, reject) => {
      const sent = httpRequest(sidecar.proxy, {
        method: 'POST',
        headers: { authorization: `Bearer ${issuer.signAccessToken()}`, 'transfer-encoding': 'chunked', ...headers },
      })
      sent.on('error', reject).on('response', (response) => {
        let body = ''
        response.on('data', (chunk) => (body += String(chunk)))
        response.on('end', () => resolve({ body, trailers: response.rawTrailers }))
      })
      sent.write('the body')
      sent.addTrailers({ ...trailers })
      sent.end()
    })
    expect(answer).toEqual({ body: '["x-sum","7"]', trailers: expected })
  })
})

describe('a request is refused', () => {
  it.each<[string, number, Http2RequestOptions & { path?: string }]>([
    ['credentials_missing', 401, {}],
    ['token_malformed', 401, { token: 'garbage' }],
    ['scope_insufficient', 403, { path: '/admin' }],
    ['target_invalid', 400, { path: '/a/../b' }],
    ['target_invalid', 400, { path: '/a//../b' }],
    ['host_invalid', 400, { headers: { ':authority': 'api.test', host: 'other.test' } }],
    ['host_invalid', 400, { headers: { ':authority': 'a,b' } }],
    ['header_invalid', 400, { headers: { ':scheme': 'ftp' } }],
    ['header_too_large', 431, { headers: { 'x-big': 'x'.repeat(33_000) } }],
    ['header_too_large', 431, { headers: Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`x-${i}`, ''])) }],
    ['expectation_failed', 417, { headers: { expect: 'something' } }],
    ['method_not_supported', 501, { method: 'TRACE' }],
    ['method_not_supported', 501, { method: 'get' }],
    ['method_not_supported', 501, { method: 'BREW' }],
  ])('with %s: %i (%#)', async (code, status, { path = '/orders', ...options }) => {
    const token = code === 'scope_insufficient' ? issuer.signAccessToken() : undefined
    const answer = await caller.get(path, { token, ...options })
    expect(answer).toMatchObject({ status, rstCode: 0 })
    expect(answer.headers['content-type']).toBe('application/problem+json')
    const problem = json(answer)
    expect(problem).toMatchObject({ code, status })
    const refused = { code, status, request_id: problem['request_id'] }
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject(refused), 5_000)
    expect(answer.headers).toHaveProperty(
      status === 401 || code === 'scope_insufficient' ? 'www-authenticate' : 'cache-control',
    )
    expect(upstream.requests).toEqual([])
  })

  it('when it is a CONNECT', async () => {
    const stream = caller.session.request({ ':method': 'CONNECT', ':authority': 'db.test:5432' })
    const headers = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
    expect(headers[':status']).toBe(501)
    const refused = { code: 'method_not_supported', status: 501, method: 'CONNECT' }
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject(refused), 5_000)
    expect(upstream.requests).toEqual([])
    stream.close()
  })

  it('without its body being read', async () => {
    const { stream, answer } = caller.start('/orders', { body: 'open' })
    stream.write('the beginning')
    expect(await answer).toMatchObject({ status: 401, rstCode: 0 })
    expect(stream.closed).toBe(true)
  })

  it('with a status that the metrics count', async () => {
    await caller.get('/orders')
    const text = await sidecar.metrics()
    expect(text).toMatch(/bearward_requests_total\{rule="default",code="credentials_missing",status_class="4xx"\} \d+/)
    await vi.waitFor(async () => expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/), 5_000)
  })
})

describe('a caller that leaves', () => {
  it('while it waits takes its request to the backend along', async () => {
    behave = () => undefined
    const { stream } = caller.start('/slow', { token: issuer.signAccessToken() })
    await vi.waitFor(() => expect(upstream.requests).toHaveLength(1), 5_000)
    stream.close(8)
    await vi.waitFor(() => expect(upstream.requests[0]?.state).toBe('aborted'), 5_000)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'caller_gone', status: 499 }), 5_000)
  })

  it('while it reads takes its request to the backend along', async () => {
    behave = (_request, response) => {
      const more = () => {
        while (response.write(Buffer.alloc(50_000)));
        response.once('drain', more)
      }
      more()
    }
    const { stream } = caller.start('/endless', { token: issuer.signAccessToken() })
    await new Promise((resolve) => stream.once('data', resolve))
    stream.close(8)
    await vi.waitFor(() => expect(upstream.requests[0]?.state).toBe('aborted'), 5_000)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'caller_gone', status: 499 }), 5_000)
  })

  it('with its whole connection takes all of its requests along', async () => {
    behave = () => undefined
    const other = await openCaller(sidecar.proxyPort)
    const token = issuer.signAccessToken()
    for (let i = 0; i < 20; i += 1) other.start(`/slow/${i}`, { token })
    await vi.waitFor(() => expect(upstream.requests).toHaveLength(20), 5_000)
    other.close()
    await vi.waitFor(() => expect(upstream.requests.map(({ state }) => state)).not.toContain('open'), 5_000)
    await vi.waitFor(async () => expect(await sidecar.metrics()).toMatch(/bearward_requests_in_flight 0/), 5_000)
  })
})

describe('when the backend fails', () => {
  it('before the header: 502', async () => {
    behave = (request) => request.socket.destroy()
    const answer = await get('/orders', { body: 'x' })
    expect(answer.status).toBe(502)
    expect(json(answer)['code']).toBe('upstream_reset')
  })

  it('in the middle of the body, the stream is reset', async () => {
    behave = (request, response) => {
      response.write('the beginning')
      setTimeout(() => request.socket.destroy(), 50)
    }
    const answer = await get('/')
    expect(answer).toMatchObject({ status: 200, rstCode: 2, body: Buffer.from('the beginning') })
    const cut = { code: 'upstream_reset', status: 200 }
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject(cut), 5_000)
  })
})
