import { describe, expect, it } from 'vitest'
import type { ResponseHead } from '../../../src/http/response-head.ts'
import { ResponseReader } from '../../../src/proxy/response-reader.ts'

interface Seen {
  status: number
  fields: readonly string[]
  body: string
  ended: number
  reusable: boolean
  busy: boolean
}

/** Reads a response that comes in pieces of `size` bytes, and then perhaps the end of the connection. */
function read(text: string, { size = text.length, method = 'GET', end = false } = {}): Seen {
  const reader = new ResponseReader()
  const seen: Seen = { status: 0, fields: [], body: '', ended: 0, reusable: false, busy: true }
  reader.expect(method, {
    onHead({ status, fields }: ResponseHead) {
      seen.status = status
      seen.fields = fields
    },
    onData(chunk, last) {
      seen.body += chunk.toString('latin1')
      if (last) seen.ended += 1
    },
    onEnd: () => void (seen.ended += 1),
  })
  const bytes = Buffer.from(text, 'latin1')
  for (let at = 0; at < bytes.length; at += size) reader.read(bytes.subarray(at, at + size))
  if (end) reader.end()
  return { ...seen, reusable: reader.reusable, busy: reader.busy }
}

const lines = (...texts: string[]) => `${texts.join('\r\n')}\r\n\r\n`

describe('a response is read, in whatever pieces it comes', () => {
  const responses: [string, string, Partial<Seen>, { method?: string; end?: boolean }?][] = [
    [
      'with a length',
      `${lines('HTTP/1.1 200 OK', 'Content-Length: 5', 'X: caf\xe9')}hello`,
      { status: 200, fields: ['Content-Length', '5', 'X', 'caf\xe9'], body: 'hello', reusable: true },
    ],
    ['with an empty body', lines('HTTP/1.1 200 OK', 'content-length: 0'), { body: '', reusable: true }],
    [
      'in chunks, with extension and trailer',
      `${lines('HTTP/1.1 200 OK', 'Transfer-Encoding: Chunked')}5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX: 1\r\n\r\n`,
      { body: 'hello world', reusable: true },
    ],
    [
      'until the connection closes',
      `${lines('HTTP/1.1 200 OK')}hello`,
      { body: 'hello', reusable: false },
      { end: true },
    ],
    ['to HEAD', lines('HTTP/1.1 200 OK', 'Content-Length: 5'), { body: '', reusable: true }, { method: 'HEAD' }],
    ['204', lines('HTTP/1.1 204 No Content'), { status: 204, reusable: true }],
    ['304 with a length', lines('HTTP/1.1 304 Not Modified', 'Content-Length: 9'), { status: 304, reusable: true }],
    [
      'after interim ones',
      `${lines('HTTP/1.1 100 Continue')}${lines('HTTP/1.1 103 Early Hints', 'Link: </a>')}${lines('HTTP/1.1 200', 'Content-Length: 1')}x`,
      { status: 200, body: 'x', reusable: true },
    ],
    [
      'that closes',
      `${lines('HTTP/1.1 200 OK', 'Connection: close', 'Content-Length: 1')}x`,
      { body: 'x', reusable: false },
    ],
    ['of HTTP/1.0', `${lines('HTTP/1.0 200 OK', 'Content-Length: 1')}x`, { body: 'x', reusable: false }],
  ]
  it.each(responses)('%s', (_name, text, expected, options = {}) => {
    for (const size of [text.length, 1, 2, 3, 7]) {
      expect(read(text, { ...options, size })).toMatchObject({ ...expected, ended: 1, busy: false })
    }
  })

  it('leaves a connection that cannot be used again when more comes than was asked for', () => {
    const once = `${lines('HTTP/1.1 200 OK', 'Content-Length: 1')}x`
    for (const text of [`${once}y`, once + once, `${lines('HTTP/1.1 204 No Content')}${once}`]) {
      expect(read(text)).toMatchObject({ ended: 1, busy: false, reusable: false })
    }
  })

  it('is not complete before its end', () => {
    expect(read(`${lines('HTTP/1.1 200 OK', 'Content-Length: 5')}hell`, { end: true })).toMatchObject({
      ended: 0,
      busy: true,
    })
    const cut = `${lines('HTTP/1.1 200 OK', 'Transfer-Encoding: chunked')}5\r\nhello\r\n`
    expect(read(cut, { end: true })).toMatchObject({ body: 'hello', ended: 0, busy: true })
  })
})

describe('a response that two parsers could read differently is a fault', () => {
  const head = (...fields: string[]) => lines('HTTP/1.1 200 OK', ...fields)
  const chunks = (text: string) => `${head('Transfer-Encoding: chunked')}${text}`
  it.each<[string, string]>([
    ['two lengths', head('Content-Length: 1', 'Content-Length: 1')],
    ['a list of lengths', head('Content-Length: 1, 1')],
    ['a signed length', head('Content-Length: +1')],
    ['a hexadecimal length', head('Content-Length: 0x1')],
    ['an empty length', head('Content-Length:')],
    ['a huge length', head('Content-Length: 99999999999999999999')],
    ['length beside chunks', head('Content-Length: 1', 'Transfer-Encoding: chunked')],
    ['another coding', head('Transfer-Encoding: gzip')],
    ['two codings', head('Transfer-Encoding: gzip, chunked')],
    ['chunked twice', head('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')],
    ['a space before the colon', head('Content-Length : 1')],
    ['a folded line', head('X: 1', ' 2')],
    ['no colon', head('X')],
    ['no name', head(': 1')],
    ['a bare line feed', head('X: 1\nContent-Length: 0')],
    ['a bare carriage return', head('X: 1\rY: 2')],
    ['NUL', head('X: \0')],
    ['another protocol', lines('HTTP/2 200')],
    ['no status', lines('HTTP/1.1 OK')],
    ['a status of four digits', lines('HTTP/1.1 2000 OK')],
    ['status 101', lines('HTTP/1.1 101 Switching Protocols')],
    ['garbage', lines('SSH-2.0-OpenSSH')],
    ['a chunk size that is none', chunks('x\r\n')],
    ['a chunk size with a sign', chunks('-1\r\n')],
    ['a chunk size of nine digits', chunks('100000000\r\n')],
    ['a chunk longer than its size', chunks('1\r\nxy\r\n')],
    ['a chunk line without carriage return', chunks('1\nx\r\n')],
    ['an endless chunk line', chunks(`1;${'a'.repeat(2000)}`)],
    ['endless trailers', chunks(`0\r\n${'X: 1\r\n'.repeat(20_000)}`)],
    ['an endless head', `HTTP/1.1 200 OK\r\n${'X: 1\r\n'.repeat(20_000)}`],
  ])('%s', (_name, text) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ name: 'MessageFault' }) as Error)
    if (text.length < 1000) {
      expect(() => read(text, { size: 1 })).toThrow(expect.objectContaining({ name: 'MessageFault' }) as Error)
    }
  })
})
