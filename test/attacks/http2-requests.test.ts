import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
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
  request,
  reset,
  type RawHttp2,
} from '../fakes/http2-raw.ts'
import { startHttp2Upstream, type FakeHttp2Upstream } from '../fakes/http2-upstream.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startRawUpstream, type RawUpstream } from '../fakes/upstream.ts'

type Fields = readonly (readonly [string, string])[]

let issuer: AuthorizationServer
/** A backend of HTTP/1.1 that keeps every byte, and one of HTTP/2. */
let backend: RawUpstream
let backend2: FakeHttp2Upstream
let sidecar: FakeSidecar
let sidecar2: FakeSidecar
/** How many bytes the backend had received before the test. */
let mark = 0
const connections: RawHttp2[] = []

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  backend = await startRawUpstream((socket, all) => {
    const last = all.slice(all.lastIndexOf(' HTTP/1.1\r\n'))
    const end = last.includes('chunked\r\n') ? '\r\n0\r\n\r\n' : '\r\n\r\n'
    if (last.endsWith(end) && !last.includes('content-length: 10\r\n'))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
  backend2 = await startHttp2Upstream()
  const config = {
    issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
    rules: [
      { name: 'public', prefix: ['/public'], access: 'public' },
      { name: 'write', prefix: ['/orders'], methods: ['POST'], scopes: { all: ['write:orders'] } },
    ],
  }
  sidecar = await startSidecar({ config: { ...config, upstream: backend.url } })
  sidecar2 = await startSidecar({ config: { ...config, upstream: backend2.url } })
  await Promise.all([sidecar.ready(), sidecar2.ready()])
})

afterEach(() => {
  for (const connection of connections.splice(0)) connection.close()
  backend2.requests.splice(0)
  mark = backend.received().length
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await backend.stop()
  await backend2.stop()
})

async function open(through = sidecar): Promise<RawHttp2> {
  const connection = await openHttp2(through.proxyPort)
  connections.push(connection)
  return connection
}

const bearer = (): readonly [string, string] => ['authorization', `Bearer ${issuer.signAccessToken()}`]
/** What the backend has received in this test. */
const received = () => backend.received().slice(mark)
const responded = (connection: RawHttp2, id = 1) =>
  connection.wait((one) => one.id === id && (one.type === FRAME.headers || one.type === FRAME.rstStream))

/** How a stream, or the connection, ended. */
async function ending(connection: RawHttp2, id = 1): Promise<string> {
  const last = await connection.wait(
    ({ type, id: on, flags }) =>
      type === FRAME.goaway ||
      (on === id && (type === FRAME.rstStream || (type === FRAME.data && (flags & FLAG.endStream) !== 0))),
  )
  if (last === undefined) return 'nothing'
  if (last.type === FRAME.goaway) return `goaway ${codeOf(last)}`
  return last.type === FRAME.rstStream ? `reset ${codeOf(last)}` : 'answer'
}

/** Both backends have seen nothing, and the sidecar serves on. */
async function unharmed(): Promise<void> {
  const connection = await open()
  connection.send(headers(1, request('/public/alive')))
  expect(await ending(connection)).toBe('answer')
  expect(received()).toMatch(/^GET \/public\/alive HTTP\/1\.1\r\n/)
  expect(received().match(/ HTTP\/1\.1\r\n/g)).toHaveLength(1)
  expect(backend2.requests).toEqual([])
}

describe('who a request is from', () => {
  const spoofed: Fields = [
    ['x-auth-subject', 'admin'],
    ['x_auth_subject', 'admin'],
    ['x-auth_subject', 'admin'],
    ['x-auth-anything', 'admin'],
    ['x-forwarded-for', '10.0.0.1'],
    ['x-real-ip', '10.0.0.1'],
    ['x-request-id', 'a'],
    ['x-request-id', 'b'],
  ]

  it.each([
    ['with a token', '/orders', true, ['user-1']],
    ['without one, on a public path', '/public/a', false, []],
  ])('cannot be said in header fields, %s', async (_name, path, withToken, subjects) => {
    const fields: Fields = withToken ? [bearer(), ...spoofed] : spoofed
    const one = await open()
    one.send(headers(1, request(path, fields)))
    expect(await ending(one)).toBe('answer')
    const lines = received().split('\r\n')
    expect(lines.filter((line) => /^x[-_]auth[-_]subject:/i.test(line))).toEqual(
      subjects.map((subject) => `x-auth-subject: ${subject}`),
    )
    expect(received()).not.toMatch(/admin|10\.0\.0\.1/)
    expect(lines.filter((line) => /^x-request-id:/i.test(line))).toHaveLength(1)
    expect(received()).not.toMatch(/^x-request-id: [ab]$/m)

    const two = await open(sidecar2)
    two.send(headers(1, request(path, fields)))
    expect(await ending(two)).toBe('answer')
    const raw = backend2.requests[0]?.raw.join('\n')
    expect(raw).not.toMatch(/admin|10\.0\.0\.1/)
    expect(backend2.requests[0]?.raw.filter((_, i, all) => all[i - 1] === 'x-auth-subject')).toEqual(subjects)
  })

  it('cannot be said in trailer fields', async () => {
    const two = await open(sidecar2)
    two.send(
      headers(1, request('/public/a', [], 'POST'), false),
      data(1, 'the body', false),
      headers(1, [...spoofed, bearer(), ['cookie', 'a=1'], ['x-sum', '1']]),
    )
    expect(await ending(two)).toBe('answer')
    expect(backend2.requests[0]?.trailers).toEqual(['x-sum', '1'])
  })

  it('is not clear from two sets of credentials', async () => {
    const one = await open()
    one.send(headers(1, request('/orders', [bearer(), bearer()])))
    expect(await ending(one)).toBe('answer')
    await vi.waitFor(
      () => expect(sidecar.lastRequest()).toMatchObject({ code: 'credentials_ambiguous', status: 400 }),
      5_000,
    )
    await unharmed()
  })

  it('is not clear from credentials that hold what no field may', async () => {
    const one = await open()
    one.send(
      headers(
        1,
        request('/orders', [
          ['authorization', `Bearer a\0`],
          ['authorization', 'Bearer b\r\n'],
        ]),
      ),
    )
    expect(await ending(one)).toBe('answer')
    await vi.waitFor(
      () => expect(sidecar.lastRequest()).toMatchObject({ code: 'credentials_missing', status: 401 }),
      5_000,
    )
    await unharmed()
  })
})

describe('a malformed header is refused and nothing of it travels on', () => {
  const pseudo = (method: string, path: string, more: Fields = []): Fields => [
    [':method', method],
    [':scheme', 'http'],
    [':authority', 'api.test'],
    [':path', path],
    ...more,
  ]

  it.each<[string, Fields]>([
    ['connection', request('/public/a', [['connection', 'close']])],
    ['connection naming a field', request('/public/a', [['connection', 'x-auth-subject']])],
    ['keep-alive', request('/public/a', [['keep-alive', 'timeout=5']])],
    ['proxy-connection', request('/public/a', [['proxy-connection', 'keep-alive']])],
    ['upgrade', request('/public/a', [['upgrade', 'websocket']])],
    ['transfer-encoding', request('/public/a', [['transfer-encoding', 'chunked']])],
    ['te other than trailers', request('/public/a', [['te', 'gzip']])],
    ['an upper-case name', request('/public/a', [['X-Odd', 'a']])],
    ['an upper-case spelling of ours', request('/public/a', [['X-Auth-Subject', 'admin']])],
    ['a second :method', pseudo('GET', '/public/a', [[':method', 'POST']])],
    ['a second :path', pseudo('GET', '/public/a', [[':path', '/orders']])],
    ['a second :scheme', pseudo('GET', '/public/a', [[':scheme', 'https']])],
    ['a second :authority', pseudo('GET', '/public/a', [[':authority', 'other.test']])],
    [
      'a second host',
      [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':path', '/public/a'],
        ['host', 'a'],
        ['host', 'b'],
      ],
    ],
    ['an unknown pseudo-header field', pseudo('GET', '/public/a', [[':admin', 'yes']])],
    ['a :status', pseudo('GET', '/public/a', [[':status', '200']])],
    [
      'a pseudo-header field after others',
      [...pseudo('GET', '/public/a').slice(0, 3), ['x-odd', 'a'], [':path', '/public/a']],
    ],
    ['no :method', pseudo('GET', '/public/a').slice(1)],
    ['no :scheme', pseudo('GET', '/public/a').filter(([name]) => name !== ':scheme')],
    ['no :path', pseudo('GET', '/public/a').slice(0, 3)],
    ['no :authority and no host', pseudo('GET', '/public/a').filter(([name]) => name !== ':authority')],
    ['an empty :path', pseudo('GET', '')],
    ['a :path without a slash', pseudo('GET', 'public/a')],
    ['a :path that is a query alone', pseudo('GET', '?a')],
    ['a :path that is a star, not for OPTIONS', pseudo('GET', '*')],
    ['a :path with a tab', pseudo('GET', '/public/a\tb')],
    ['a :path with DEL', pseudo('GET', '/public/a\x7f')],
    [
      'an empty :authority',
      [...pseudo('GET', '/public/a').filter(([name]) => name !== ':authority'), [':authority', '']],
    ],
    ['a :path with a space', pseudo('GET', '/public/a HTTP/1.1')],
    ['a :path with a line break', pseudo('GET', '/public/a\r\nX-Auth-Subject: admin\r\n')],
    ['a :path in another form', pseudo('GET', 'http://api.test/public/a')],
    ['a :method with a line break', pseudo('GET /public/b HTTP/1.1\r\n\r\nGET', '/public/a')],
    [
      'a :authority with a line break',
      [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':authority', 'a\r\nx: y'],
        [':path', '/public/a'],
      ],
    ],
    [
      'a :authority with a user',
      [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':authority', 'u@a'],
        [':path', '/public/a'],
      ],
    ],
    ['an extended CONNECT', pseudo('CONNECT', '/public/a', [[':protocol', 'websocket']])],
    ['a content-length that is no number', request('/public/a', [['content-length', '+1']], 'POST')],
    [
      'two of content-length',
      request(
        '/public/a',
        [
          ['content-length', '1'],
          ['content-length', '1'],
        ],
        'POST',
      ),
    ],
    ['a content-length without a body', request('/public/a', [['content-length', '1']], 'POST')],
  ])('%s', async (_name, fields) => {
    const one = await open()
    one.send(headers(1, fields))
    expect(await ending(one)).toBe(`reset ${ERROR.protocol}`)
    const two = await open(sidecar2)
    two.send(headers(1, fields))
    expect(await ending(two)).toBe(`reset ${ERROR.protocol}`)
    await unharmed()
  })

  it.each<[string, Fields, string]>([
    [
      'a CONNECT',
      [
        [':method', 'CONNECT'],
        [':authority', 'db.test:5432'],
      ],
      'method_not_supported',
    ],
    ['a method in lower case', pseudo('post', '/orders', [bearer0()]), 'method_not_supported'],
    ['a method nobody knows', pseudo('BREW', '/public/a'), 'method_not_supported'],
    ['the method of the preface', pseudo('PRI', '/public/a'), 'method_not_supported'],
    [
      'a scheme of another kind',
      [
        [':method', 'GET'],
        [':scheme', 'file'],
        [':authority', 'a'],
        [':path', '/public/a'],
      ],
      'header_invalid',
    ],
    ['the remains of an upgrade', request('/public/a', [['http2-settings', 'AAMAAABkAAQAAP__']]), 'header_invalid'],
    ['a host that is another', request('/public/a', [['host', 'other.test']]), 'host_invalid'],
    [
      'a host that is none',
      [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':authority', 'a,b'],
        [':path', '/public/a'],
      ],
      'host_invalid',
    ],
    ['a path of dots', request('/public/../orders'), 'target_invalid'],
    ['a path of two slashes', request('//evil.test/public/a'), 'target_invalid'],
    ['a fragment', request('/public/a#b'), 'target_invalid'],
    ['a path that is a star', request('*', [], 'OPTIONS'), 'target_invalid'],
    ['a backslash', request('/public\\..\\orders'), 'target_invalid'],
    ['a path with a byte above ASCII', request('/public/\xff'), 'target_invalid'],
    ['an encoded NUL', request('/public/%00'), 'target_invalid'],
    ['a host with another port', request('/public/a', [['host', 'api.test:80']]), 'host_invalid'],
  ])('%s, with an answer', async (_name, fields, code) => {
    const one = await open()
    one.send(headers(1, fields))
    expect(await ending(one)).toBe('answer')
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code }), 5_000)
    await unharmed()
  })

  it.each<[string, readonly [string, string]]>([
    ['a line break in a value', ['x-odd', 'a\r\nX-Auth-Subject: admin']],
    ['a second request in a value', ['x-odd', 'a\r\n\r\nGET /orders HTTP/1.1\r\nHost: a\r\n\r\n']],
    ['NUL in a value', ['x-odd', 'a\0b']],
    ['a line feed in a name', ['x-odd\nx-auth-subject', 'admin']],
    ['a colon in a name', ['x-auth-subject:x', 'admin']],
    ['a space in a name', ['x-auth-subject ', 'admin']],
    ['an empty name', ['', 'admin']],
  ])('%s, field by field', async (_name, field) => {
    const one = await open()
    one.send(headers(1, request('/public/a', [field, ['x-other', 'here']])))
    expect(await ending(one)).toBe('answer')
    // The library passes such a field over; what remains is one request with the other fields.
    expect(received().match(/ HTTP\/1\.1\r\n/g)).toHaveLength(1)
    expect(received()).not.toMatch(/x-odd|admin|auth-subject|orders/i)
    expect(received()).toContain('\r\nx-other: here\r\n')
  })
})

describe('a stream that is reset before anybody sees it', () => {
  const bad = (id: number) => headers(id, request('/public/a', [['connection', 'close']]))
  const good = (id: number) => headers(id, request('/public/a'))
  const answered = (connection: RawHttp2, id: number) =>
    connection.wait(({ type, id: on }) => type === FRAME.data && on === id)
  const unseen = () =>
    sidecar.logLines().flatMap(({ code, detail }) => {
      const { reason } = (detail ?? {}) as { reason?: string }
      return code === 'frame_invalid' && reason?.startsWith('reset unseen') ? [reason] : []
    })

  it.each<[string, string, (connection: RawHttp2) => Promise<unknown>]>([
    ['the last', '3-5', async (one) => one.send(good(1), bad(3), bad(5))],
    ['the only one', '7-7', async (one) => one.send(bad(7))],
    [
      'one between others',
      '3-5',
      async (one) => {
        one.send(good(1), bad(3), bad(5), good(7))
        await answered(one, 7)
      },
    ],
    [
      'one whose caller leaves at once',
      '3-3',
      async (one) => {
        one.send(good(1), bad(3))
        await responded(one, 3)
        one.close()
      },
    ],
    [
      'one whose caller says goodbye',
      '3-3',
      async (one) => {
        one.send(good(1), bad(3), frame(FRAME.goaway, 0, 0, Buffer.alloc(8)))
        one.socket.end()
      },
    ],
  ])('is in the log and counted: %s', async (_name, numbers, act) => {
    const before = unseen().length
    const count = async () =>
      Number(/code="frame_invalid",status_class="4xx"\} (\d+)/.exec(await sidecar.metrics())?.[1] ?? 0)
    const counted = await count()
    await act(await open())
    await vi.waitFor(() => expect(unseen().slice(before)).toEqual([`reset unseen: ${numbers}`]), 5_000)
    expect(await count()).toBe(counted + 1)
  })

  it('fills no log, however many there are', async () => {
    const before = unseen().length
    const one = await open()
    for (let id = 1; !one.closed && id < 400; id += 2) one.send(bad(id))
    expect(await one.ended()).toBe(true)
    expect(unseen().length - before).toBeLessThanOrEqual(3)
  })

  it('is no stream whose header came in pieces, nor a number that nobody used', async () => {
    const before = unseen().length
    const block = headerBlock(request('/public/a'))
    const one = await open()
    // As nghttp does, which once used the numbers before for priorities.
    one.send(good(13), frame(FRAME.headers, FLAG.endStream, 15, block.subarray(0, 10)))
    await answered(one, 13)
    await new Promise((resolve) => setTimeout(resolve, 300))
    one.send(frame(FRAME.continuation, FLAG.endHeaders, 15, block.subarray(10)))
    await answered(one, 15)
    await new Promise((resolve) => setTimeout(resolve, 1_200))
    one.close()
    expect(unseen().slice(before)).toEqual([])
  })
})

describe('the end of a body', () => {
  it.each<[string, (id: number) => Buffer[], string]>([
    ['is shorter than it said', (id) => [data(id, '12345')], `reset ${ERROR.protocol}`],
    ['is longer than it said', (id) => [data(id, '1234567890!!!!!')], 'goaway 2'],
    [
      'has a pseudo-header field',
      (id) => [data(id, '12345', false), headers(id, [[':path', '/x']])],
      `reset ${ERROR.protocol}`,
    ],
    [
      'has trailers that end nothing',
      (id) => [data(id, '12345', false), headers(id, [['x-sum', '1']], false)],
      `reset ${ERROR.protocol}`,
    ],
  ])('that %s is seen by nobody', async (_name, frames, end) => {
    const before = sidecar.logLines().length
    const gone = { path: '/public/upload', code: 'caller_gone', status: 499 }
    const one = await open()
    one.send(headers(1, request('/public/upload', [['content-length', '10']], 'POST'), false))
    await vi.waitFor(() => expect(received()).toContain('content-length: 10\r\n'), 5_000)
    one.send(...frames(1))
    expect(await ending(one)).toBe(end)
    await vi.waitFor(
      () => expect(sidecar.logLines().slice(before)).toContainEqual(expect.objectContaining(gone)),
      5_000,
    )
    const body = received().split('\r\n\r\n').slice(1).join('\r\n\r\n')
    expect(body.length).toBeLessThan(10)
  })

  it.each([ERROR.none, ERROR.protocol, ERROR.cancel])('that was cut off with %i is seen by nobody', async (code) => {
    const one = await open()
    one.send(headers(1, request('/public/upload', [], 'POST'), false), data(1, 'the beginning', false))
    await vi.waitFor(() => expect(received()).toContain('\r\nd\r\nthe beginning\r\n'), 5_000)
    one.send(reset(1, code))
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'caller_gone', status: 499 }), 5_000)
    expect(received()).not.toContain('\r\n0\r\n')

    const two = await open(sidecar2)
    two.send(headers(1, request('/public/upload', [], 'POST'), false), data(1, 'the beginning', false))
    await vi.waitFor(() => expect(backend2.requests[0]?.body.length).toBe(13), 5_000)
    two.send(reset(1, code))
    await vi.waitFor(() => expect(backend2.requests[0]?.state).toBe('aborted'), 5_000)
  })

  it.each<[string, Buffer]>([
    ['more of it', data(1, 'GET /orders HTTP/1.1\r\n\r\n')],
    ['more of it, and nothing', data(1, '')],
    ['a second header', headers(1, request('/orders'))],
  ])('is its end, whatever follows on the stream: %s', async (_name, more) => {
    const one = await open()
    one.send(
      headers(1, request('/public/upload', [['content-length', '10']], 'POST'), false),
      data(1, '0123456789', true),
    )
    one.send(more)
    expect(await ending(one)).toMatch(/^(goaway [15]|nothing)$/)
    expect(await one.ended()).toBe(true)
    expect(received()).toMatch(/^(POST \/public\/upload HTTP\/1\.1\r\n[^]*\r\n\r\n0123456789)?$/)
  })

  it.each<[string, Fields]>([
    ['transfer-encoding', [['transfer-encoding', 'chunked']]],
    ['connection', [['connection', 'x-sum']]],
    ['content-length', [['content-length', '3']]],
    ['host', [['host', 'other.test']]],
    ['te', [['te', 'trailers']]],
  ])('says nothing about the message in trailers: %s', async (name, fields) => {
    const one = await open()
    one.send(headers(1, request('/public/upload', [], 'POST'), false), data(1, 'x', false), headers(1, fields))
    expect(await ending(one)).toMatch(/^(answer|reset 1)$/)
    const body = received().split('\r\n\r\n').slice(1).join('\r\n\r\n')
    expect(body).not.toMatch(new RegExp(name, 'i'))
  })

  it('is where the frames end, whatever the body looks like', async () => {
    const body = '0\r\n\r\nGET /orders HTTP/1.1\r\nHost: a\r\n\r\n!'
    const one = await open()
    one.send(headers(1, request('/public/upload', [], 'POST'), false), data(1, body))
    expect(await ending(one)).toBe('answer')
    const [head = '', ...rest] = received().split('\r\n\r\n')
    expect(head).toMatch(/^POST \/public\/upload HTTP\/1\.1\r\n/)
    expect(head).toContain('\r\ntransfer-encoding: chunked')
    expect(rest.join('\r\n\r\n')).toBe(`${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`)
  })

  it('is the header when it says so, also for a length of nothing', async () => {
    const one = await open()
    one.send(headers(1, request('/public/upload', [['content-length', '0']], 'POST'), false), data(1, ''))
    expect((await responded(one))?.type).toBe(FRAME.headers)
    expect(received()).toContain('\r\ncontent-length: 0\r\n')
    expect(received()).not.toContain('transfer-encoding')
  })
})

it('after its GOAWAY, a caller gets what it asked for before, and opens nothing more', async () => {
  const one = await open()
  one.send(headers(1, request('/public/upload', [], 'POST'), false), data(1, 'hello', false))
  await vi.waitFor(() => expect(received()).toContain('hello'), 5_000)
  one.send(frame(FRAME.goaway, 0, 0, Buffer.alloc(8)), headers(3, request('/public/later')))
  one.send(data(1, ' world'))
  expect((await one.wait(({ type, id }) => type === FRAME.data && id === 1))?.payload.toString()).toBe('ok')
  expect(await one.ended()).toBe(true)
  expect(received()).not.toContain('/public/later')
})

it('a header in pieces is one header', async () => {
  const block = headerBlock(
    request('/public/pieces', [
      ['x-auth-subject', 'admin'],
      ['x-odd', 'whole'],
    ]),
  )
  const one = await open()
  const third = Math.floor(block.length / 3)
  one.send(
    frame(FRAME.headers, FLAG.endStream, 1, block.subarray(0, third)),
    frame(FRAME.continuation, 0, 1, block.subarray(third, 2 * third)),
    frame(FRAME.continuation, FLAG.endHeaders, 1, block.subarray(2 * third)),
  )
  expect(await ending(one)).toBe('answer')
  expect(received()).toContain('x-odd: whole')
  expect(received()).not.toContain('admin')
})

/** A token for a table that is made before the authorization server is there: it is not looked at. */
function bearer0(): readonly [string, string] {
  return ['authorization', 'Bearer x']
}
