import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startTarget, type Target } from '../fakes/attack.ts'
import { ok } from '../fakes/recorder.ts'

/** Responses of a backend that somebody else has a say in: what of them reaches the caller, and the caller after that. */
let target: Target

beforeAll(async () => void (target = await startTarget()))
afterEach(() => void (target.backend.answer = ok))
afterAll(async () => {
  expect(target.sidecar.logText()).not.toContain('unexpected error')
  await target.stop()
})

const GET = 'GET /public/a HTTP/1.1\r\nHost: api.test\r\n\r\n'
const HEAD = 'HEAD /public/a HTTP/1.1\r\nHost: api.test\r\n\r\n'
const NEXT = 'GET /public/next HTTP/1.1\r\nHost: api.test\r\n\r\n'
const GOOD = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const POISON = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: 1\r\n\r\npoison'

/** Answers the first request with these bytes, and others as usual. */
function answerWith(bytes: string, end = false, later = ''): void {
  target.backend.answer = (socket: Socket, request) => {
    if (!request.includes('/public/a ')) return ok(socket)
    socket.write(Buffer.from(bytes, 'latin1'))
    if (end) socket.end()
    if (later !== '') setTimeout(() => socket.write(Buffer.from(later, 'latin1')), 30)
  }
}

const status = (line: string, fields = 'Content-Length: 2\r\n', body = 'ok') => `${line}\r\n${fields}\r\n${body}`
const fields = (lines: string, body = 'ok') => status('HTTP/1.1 200 OK', lines, body)

const MALFORMED: readonly (readonly [string, string])[] = [
  ['both a length and chunks', fields('Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['chunks and a length', fields('Transfer-Encoding: chunked\r\nContent-Length: 2\r\n', '0\r\n\r\n')],
  ['two lengths', fields('Content-Length: 2\r\nContent-Length: 3\r\n')],
  ['the same length twice', fields('Content-Length: 2\r\nContent-Length: 2\r\n')],
  ['a list of lengths', fields('Content-Length: 2, 2\r\n')],
  ['a length with a sign', fields('Content-Length: +2\r\n')],
  ['a negative length', fields('Content-Length: -2\r\n')],
  ['a length in hexadecimal', fields('Content-Length: 0x2\r\n')],
  ['an empty length', fields('Content-Length:\r\n')],
  ['a length behind a vertical tab', fields('Content-Length: \x0b2\r\n')],
  ['a length of 2^64', fields('Content-Length: 18446744073709551616\r\n')],
  ['an odd coding', fields('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n')],
  ['a coding and chunked', fields('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n')],
  ['chunked and identity', fields('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n')],
  ['chunked twice', fields('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['chunked behind a vertical tab', fields('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n')],
  ['chunked before a form feed', fields('Transfer-Encoding: chunked\x0c\r\n', '0\r\n\r\n')],
  ['an empty coding', fields('Transfer-Encoding:\r\nContent-Length: 2\r\n')],
  ['a space before the colon', fields('Content-Length : 2\r\n')],
  ['a folded field', fields('Content-Length: 2\r\nX: a\r\n b\r\n')],
  ['a folded length', fields('Content-Length:\r\n 2\r\n')],
  ['a field without a colon', fields('Content-Length: 2\r\nX\r\n')],
  ['a field without a name', fields('Content-Length: 2\r\n: a\r\n')],
  ['NUL in a value', fields('Content-Length: 2\r\nX: a\x00b\r\n')],
  ['NUL in a name', fields('Content-Length: 2\r\nX\x00: a\r\n')],
  ['a bare carriage return in a value', fields('Content-Length: 2\r\nX: a\rSet-Cookie: b\r\n')],
  ['a bare line feed in a value', fields('Content-Length: 2\r\nX: a\nSet-Cookie: b\r\n')],
  ['a bare line feed before a value', fields('Content-Length: 2\r\nX:\nSet-Cookie: b\r\n')],
  ['a bare carriage return at the end of a value', fields('Content-Length: 2\r\nX: a\r\r\n')],
  ['a control character in a value', fields('Content-Length: 2\r\nX: a\x01\r\n')],
  ['DEL in a value', fields('Content-Length: 2\r\nX: a\x7f\r\n')],
  ['bare line feeds', 'HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n'],
  ['no version', status('200 OK')],
  ['another version', status('HTTP/2 200 OK')],
  ['HTTP/1.2', status('HTTP/1.2 200 OK')],
  ['a version in lower case', status('http/1.1 200 OK')],
  ['a status of two digits', status('HTTP/1.1 20 OK')],
  ['a status of four digits', status('HTTP/1.1 2000 OK')],
  ['a status of letters', status('HTTP/1.1 abc OK')],
  ['a status of 000', status('HTTP/1.1 000 OK')],
  ['a status of 600', status('HTTP/1.1 600 OK')],
  ['a status with a sign', status('HTTP/1.1 +200 OK')],
  ['two spaces before the status', status('HTTP/1.1  200 OK')],
  ['a tab before the status', status('HTTP/1.1\t200 OK')],
  ['a space before the version', status(' HTTP/1.1 200 OK')],
  ['an empty line before the status', `\r\n${GOOD}`],
  ['NUL in the reason', status('HTTP/1.1 200 O\x00K')],
  ['a carriage return in the reason', status('HTTP/1.1 200 O\rK')],
  ['ICY', status('ICY 200 OK')],
  ['a request', GET],
  ['a switch of protocols', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'],
  ['interim responses without end', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(5_000)],
  ['hints without end', 'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n'.repeat(5_000)],
  ['a head without end', `HTTP/1.1 200 OK\r\n${'X: a\r\n'.repeat(20_000)}`],
  ['a field without end', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(100_000)}`],
  ['a status line without end', `HTTP/1.1 200 ${'a'.repeat(100_000)}`],
  ['a name without end', `HTTP/1.1 200 OK\r\n${'a'.repeat(100_000)}`],
]

const BROKEN_CHUNKS: readonly (readonly [string, string])[] = [
  ['a size with a sign', '+2\r\nok\r\n0\r\n\r\n'],
  ['a size with a space before', ' 2\r\nok\r\n0\r\n\r\n'],
  ['a size in 0x', '0x2\r\nok\r\n0\r\n\r\n'],
  ['no size', '\r\nok\r\n0\r\n\r\n'],
  ['a size that overflows', 'fffffffff\r\nok\r\n0\r\n\r\n'],
  ['a bare line feed behind the size', '2\nok\r\n0\r\n\r\n'],
  ['a bare line feed behind the chunk', '2\r\nok\n0\r\n\r\n'],
  ['a chunk longer than its size', '1\r\nok\r\n0\r\n\r\n'],
  ['a chunk shorter than its size', '3\r\nok\r\n0\r\n\r\n'],
  ['NUL in an extension', '2;\x00\r\nok\r\n0\r\n\r\n'],
  ['a carriage return in an extension', '2;a\rb\r\nok\r\n0\r\n\r\n'],
  ['an extension without end', `2;${'a'.repeat(10_000)}\r\nok\r\n0\r\n\r\n`],
  ['a trailer without a colon', '2\r\nok\r\n0\r\nX\r\n\r\n'],
  ['a folded trailer', '2\r\nok\r\n0\r\nX: a\r\n b\r\n\r\n'],
  ['a trailer with a space before the colon', '2\r\nok\r\n0\r\nX : a\r\n\r\n'],
  ['NUL in a trailer', '2\r\nok\r\n0\r\nX: a\x00\r\n\r\n'],
  ['trailers without end', `2\r\nok\r\n0\r\n${'X: a\r\n'.repeat(20_000)}`],
]

describe('a response that can be read in two ways', () => {
  it.each(MALFORMED)('%s: 502, and its connection serves nobody else', async (_what, bytes) => {
    answerWith(bytes + POISON)
    const before = target.backend.connections()
    const outcome = await target.attack(GET + NEXT, { answers: 2 })
    const interim = outcome.statuses.filter((one) => one >= 200)
    expect(interim).toEqual([502, 200])
    expect(outcome.codes).toEqual(['upstream_invalid_response'])
    expect(outcome.text).not.toMatch(/poison|Set-Cookie/i)
    expect(outcome.backend).toHaveLength(2)
    expect(target.backend.connections()).toBeGreaterThan(before)
    expect(outcome.text.length).toBeLessThan(8_192)
  })

  it.each(BROKEN_CHUNKS)('in its chunks, %s: 502, or cut off when a part has left', async (_what, chunks) => {
    answerWith(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`)
    const outcome = await target.attack(GET + NEXT, { answers: 2 })
    if (outcome.statuses[0] === 200) expect(outcome.closed).toBe(true)
    else expect(outcome.statuses).toEqual([502, 200])
    expect(outcome.text).not.toMatch(/\r\n0\r\n\r\n$/)
    const line = target.sidecar.logLines().findLast(({ path }) => path === '/public/a')
    expect(line).toMatchObject({ code: 'upstream_invalid_response' })
  })

  it.each(BROKEN_CHUNKS)('in chunks that come later, %s: cut off, never complete', async (_what, chunks) => {
    answerWith('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n', false, chunks)
    const outcome = await target.attack(GET + NEXT)
    expect(outcome.closed).toBe(true)
    expect(outcome.text).toMatch(/^HTTP\/1\.1 200 [\s\S]*good/)
    expect(outcome.text).not.toMatch(/0\r\n\r\n$/)
    const line = target.sidecar.logLines().findLast(({ path }) => path === '/public/a')
    expect(line).toMatchObject({ code: 'upstream_invalid_response' })
  })
})

describe('a second response behind the first', () => {
  it.each([
    ['of a GET', GET, GOOD],
    ['of a HEAD that has a body', HEAD, 'HTTP/1.1 200 OK\r\nContent-Length: 62\r\n\r\n'],
    ['of a HEAD in chunks', HEAD, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['of a 204', GET, 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['of a 204 with a length', GET, `HTTP/1.1 204 No Content\r\nContent-Length: ${POISON.length}\r\n\r\n`],
    ['of a 204 in chunks', GET, 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['of a 304', GET, 'HTTP/1.1 304 Not Modified\r\n\r\n'],
    ['of a 304 with a length', GET, `HTTP/1.1 304 Not Modified\r\nContent-Length: ${POISON.length}\r\n\r\n`],
    ['in chunks', GET, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'],
    ['behind interim ones', GET, `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${GOOD}`],
  ])('%s is nobody’s', async (_what, request, bytes) => {
    answerWith(bytes + POISON)
    const outcome = await target.attack(request + NEXT, { answers: 2 })
    expect(outcome.statuses).toHaveLength(2)
    expect(outcome.statuses[1]).toBe(200)
    expect(outcome.text).not.toContain('poison')
    expect(outcome.text).not.toContain('X-Poison')
    expect(outcome.text.endsWith('\r\n\r\nok')).toBe(true)
  })

  it.each([
    ['204', 'HTTP/1.1 204 No Content\r\nContent-Length: 90\r\n\r\n'],
    ['204 in chunks', 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ])('cannot be had by a caller that believes the length of a %s', async (_what, bytes) => {
    answerWith(bytes)
    const { text } = await target.attack(GET + NEXT, { answers: 2 })
    expect(text.slice(0, text.indexOf('\r\n\r\n'))).not.toMatch(/content-length|transfer-encoding/i)
  })

  it('that comes unasked, before the next request, is not its answer', async () => {
    target.backend.answer = (socket, request) => {
      ok(socket)
      if (request.includes('/public/a ')) setTimeout(() => socket.write(POISON), 10)
    }
    await target.attack(GET, { answers: 1 })
    await new Promise((resolve) => setTimeout(resolve, 50))
    const { text, statuses } = await target.attack(NEXT, { answers: 1 })
    expect(statuses).toEqual([200])
    expect(text).not.toContain('poison')
  })
})

describe('an interim response', () => {
  const hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Secret: 1\r\n\r\n'

  it('is passed on as early hints, with its links alone', async () => {
    answerWith(hints + GOOD)
    const { statuses, text } = await target.attack(GET, { answers: 2 })
    expect(statuses).toEqual([103, 200])
    expect(text).not.toContain('X-Secret')
  })

  it('does not reach a caller of HTTP/1.0, to whom it would be the response', async () => {
    answerWith(hints + GOOD)
    const { statuses } = await target.attack(GET.replace('HTTP/1.1', 'HTTP/1.0'))
    expect(statuses).toEqual([200])
  })

  it.each(['</a>; rel=preload\x00', '</a>; rel="a\r\n', 'nonsense', `<${'a'.repeat(30_000)}`, '</a>; rel=\xe4'])(
    'with a link of %j breaks nothing',
    async (link) => {
      answerWith(`HTTP/1.1 103 Early Hints\r\nLink: ${link}\r\n\r\n${GOOD}`)
      const { statuses } = await target.attack(GET + NEXT, { answers: 2 })
      expect([200, 502]).toContain(statuses.filter((one) => one >= 200)[0])
    },
  )
})

describe('fields of a response', () => {
  const sent = async (lines: string) => {
    answerWith(fields(`Content-Length: 2\r\n${lines}`))
    const { text } = await target.attack(GET, { answers: 1 })
    return text.slice(0, text.indexOf('\r\n\r\n') + 2)
  }

  it('keep every byte of their values', async () => {
    // In UTF-8 the last byte of the first is one that some take for a space.
    const values = ['voil\xc3\xa0', '\xa0a\xa0', 'a \t b', '\xff\x80', '"\\', '=?utf-8?q?x?=']
    const head = await sent(values.map((value) => `X-Value: ${value}\r\n`).join(''))
    expect([...head.matchAll(/^X-Value: (.*)\r$/gm)].map((match) => match[1])).toEqual(values)
  })

  it('of the connection stay here, with those that it names', async () => {
    const head = await sent(
      'Connection: X-Named, close\r\nX-Named: 1\r\nKeep-Alive: timeout=1\r\nUpgrade: h2c\r\nProxy-Authenticate: a\r\n' +
        'Trailer: X\r\nTE: trailers\r\nProxy-Connection: close\r\nX-Kept: 1\r\n',
    )
    expect(head).toMatch(/^X-Kept: 1\r$/m)
    expect(head).not.toMatch(/X-Named|h2c|timeout=1\r|proxy-|trailer|^te:/im)
  })

  it('may be many and large, up to 64 KiB', async () => {
    const head = await sent('X-Many: 1\r\n'.repeat(5_000))
    expect(head.match(/X-Many/g)).toHaveLength(5_000)
  })

  it('in trailers cannot frame or authenticate', async () => {
    answerWith(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n' +
        'Content-Length: 5\r\nTransfer-Encoding: x\r\nConnection: close\r\nHost: a\r\nX-Sum: 1\r\n\r\n',
    )
    const { text } = await target.attack(GET.replace('\r\n\r\n', '\r\nTE: trailers\r\n\r\n'), { answers: 1 })
    const [, trailers = ''] = text.split('\r\n0\r\n')
    expect(trailers).toBe('X-Sum: 1\r\n\r\n')
  })
})
