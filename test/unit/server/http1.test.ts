import type { Socket } from 'node:net'
import { duplexPair, type Duplex } from 'node:stream'
import { afterEach, describe, expect, it } from 'vitest'
import type { CallerHandler, CallerRequest } from '../../../src/server/caller.ts'
import { createHttp1Connections, type Http1Connections } from '../../../src/server/http1.ts'

let connections: Http1Connections
afterEach(() => connections.stop())

/** A connection whose requests go to `handle`. */
function open(handle: CallerHandler): { caller: Duplex; received: () => string } {
  connections = createHttp1Connections({
    limits: { headerBytes: 8_192, headersTimeoutMs: 60_000, keepAliveTimeoutMs: 5_000 },
    handle,
    onUnreadable: () => undefined,
    newRequestId: () => '1',
    acceptHttp2: undefined,
  })
  const [caller, side] = duplexPair()
  connections.accept(side as Socket)
  let text = ''
  caller.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  return { caller, received: () => text }
}

const POST = (body: string) => `POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`
const GET = 'GET /b HTTP/1.1\r\nHost: a\r\n\r\n'

describe('a connection', () => {
  it('is read on after a body whose last part could not be taken at once', async () => {
    const targets: unknown[] = []
    const { caller, received } = open((request, response) => {
      targets.push(request.url)
      request.on('data', () => request.pause())
      request.on('end', () => {
        response.writeHead(200, [])
        response.end('ok')
      })
    })
    caller.write(POST('hello'))
    await expect.poll(received).toMatch(/ok$/)
    caller.write(GET)
    await expect.poll(() => targets).toEqual(['/a', '/b'])
  })

  it.each(['', '\r\n', '\r\n\r\n'])(
    'finds a head in a large read, with a body and requests behind it (%j ahead)',
    async (ahead) => {
      const seen: unknown[] = []
      const { caller, received } = open((request, response) => {
        let bytes = 0
        const finish = () => {
          seen.push([request.method, bytes])
          response.writeHead(204, [])
          response.end()
        }
        if (request.method === 'GET') return finish()
        request.on('data', (chunk) => (bytes += chunk.length))
        request.on('end', finish)
      })
      const propfind = GET.replace('GET', 'PROPFIND').replace('\r\n\r\n', '\r\nContent-Length: 5\r\n\r\nhello')
      caller.write(ahead + POST('x'.repeat(5_000)) + ahead + propfind + GET.repeat(200))
      await expect.poll(() => received().match(/HTTP\/1\.1 204/g)).toHaveLength(202)
      expect(seen.slice(0, 3)).toEqual([
        ['POST', 5_000],
        ['PROPFIND', 5],
        ['GET', 0],
      ])
    },
  )

  it('reads nothing of a body before somebody wants it', async () => {
    let waiting: CallerRequest | undefined
    const { caller } = open((request) => void (waiting = request))
    const body = 'x'.repeat(1_000_000)
    for (const part of POST(body).match(/[^]{1,10000}/g) ?? []) caller.write(part)
    await expect.poll(() => waiting).toBeDefined()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(caller.writableLength).toBeGreaterThan(900_000)
    let bytes = 0
    waiting?.on('data', (chunk) => (bytes += chunk.length))
    await expect.poll(() => bytes).toBe(1_000_000)
  })

  it('passes over a body that nobody wanted, and finds the next request behind it', async () => {
    const targets: unknown[] = []
    const { caller, received } = open((request, response) => {
      targets.push(request.url)
      response.writeHead(403, [])
      response.end('no')
    })
    caller.write(POST(GET.repeat(3)) + GET)
    await expect.poll(() => received().match(/HTTP\/1\.1 403/g)).toHaveLength(2)
    expect(targets).toEqual(['/a', '/b'])
  })
})

describe('a response', () => {
  const answer = async (method: string, version: string, respond: Parameters<typeof open>[0]) => {
    const { caller, received } = open(respond)
    caller.write(`${method} /a HTTP/${version}\r\nHost: a\r\n\r\n`)
    await expect.poll(received).toMatch(/\r\n\r\n/)
    return received().replace(/Date: [^\r]*/, 'Date: now')
  }
  const keep = 'Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n'

  it('of one part has its length', async () => {
    const text = await answer('GET', '1.1', (_request, response) => {
      response.writeHead(200, ['X', '1'])
      response.end('hä')
    })
    expect(text).toBe(`HTTP/1.1 200 OK\r\nX: 1\r\nDate: now\r\nContent-Length: 3\r\n${keep}\r\nh\xc3\xa4`)
  })

  it('of several parts is chunked, with its trailers', async () => {
    const text = await answer('GET', '1.1', (_request, response) => {
      response.writeHead(200, ['Date', 'x'])
      response.write(Buffer.from('a'))
      response.addTrailers([['X', '1']])
      response.end(Buffer.from('b'))
    })
    expect(text).toBe(
      `HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n${keep}\r\n1\r\na\r\n1\r\nb\r\n0\r\nX: 1\r\n\r\n`,
    )
  })

  it('of several parts to HTTP/1.0 ends with the connection', async () => {
    const text = await answer('GET', '1.0', (_request, response) => {
      response.writeHead(200, [])
      response.write(Buffer.from('a'))
      response.end(Buffer.from('b'))
    })
    expect(text).toBe(`HTTP/1.1 200 OK\r\nDate: now\r\nConnection: close\r\n\r\nab`)
  })

  it.each([
    ['HEAD', 200],
    ['GET', 204],
    ['GET', 304],
  ])('to %s with %i has no body, whatever is written', async (method, status) => {
    const text = await answer(method, '1.1', (_request, response) => {
      response.writeHead(status, [])
      response.write(Buffer.from('a'))
      response.end('b')
    })
    expect(text).toMatch(/\r\n\r\n$/)
    expect(text).not.toMatch(/content-length|transfer-encoding/i)
  })
})
