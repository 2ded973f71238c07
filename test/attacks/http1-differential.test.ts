import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { duplexPair, type Duplex } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import type { CallerRequest, CallerResponse } from '../../src/server/caller.ts'
import { createHttp1Connections } from '../../src/server/http1.ts'
import { mutate } from '../fakes/mutations.ts'
import { createRandom, type Random } from '../fakes/random.ts'
import { CUT, FORWARDED, REFUSED, REFUSED_ALONE } from './framing.ts'

/**
 * Two parsers, the same bytes: what is taken for requests here, node:http takes for the same ones, to the last field and the
 * last byte of their bodies. Here more may be refused, never less. A run can be repeated with the seed in its title:
 * `SEED=1 npx vitest …`; `FUZZ=200000` makes it longer.
 */
const CASES = Number(process.env['FUZZ'] ?? 4_000)
const LIMITS = { headerBytes: 32 * 1024, headersTimeoutMs: 60_000, keepAliveTimeoutMs: 60_000 }

interface Read {
  readonly line: string
  readonly fields: readonly string[]
  /** Body and trailers; absent as long as the end was not seen. */
  rest?: { readonly body: string; readonly trailers: readonly string[] }
}

type Note = (read: Read) => void

/** Takes the connections of one parser, and notes the requests. */
interface Parser {
  accept(socket: Duplex, note: Note): void
}

const NOTE = Symbol('note')
type Noted = Duplex & { [NOTE]?: Note }

function take(request: CallerRequest, response: CallerResponse): void {
  let body = ''
  const { method, url, httpVersionMajor, httpVersionMinor, rawHeaders } = request
  const line = `${method as string} ${url as string} ${httpVersionMajor}.${httpVersionMinor}`
  // In the order of their heads: the other parser reads on while the one ahead is not answered.
  const read: Read = { line, fields: rawHeaders }
  const note = (request.socket as Noted)[NOTE]
  note?.(read)
  const settle = () => {
    read.rest = { body, trailers: request.rawTrailers }
    response.writeHead(204, [])
    response.end()
  }
  if (request.tunnel !== undefined || !hasBody(rawHeaders)) return settle()
  request.on('data', (chunk) => (body += chunk.toString('latin1')))
  request.on('end', settle)
}

function hasBody(fields: readonly string[]): boolean {
  return fields.some((name, i) => i % 2 === 0 && /^(?:content-length|transfer-encoding)$/i.test(name))
}

const http1 = createHttp1Connections({
  limits: LIMITS,
  handle: (request, response, _expectsContinue, fault) => {
    if (fault === undefined) return take(request, response)
    response.shouldKeepAlive = false
    response.writeHead(400, [])
    response.end()
  },
  onUnreadable: () => undefined,
  newRequestId: () => '1',
  acceptHttp2: undefined,
})
afterAll(() => http1.stop())

const ours: Parser = {
  accept(socket, note) {
    http1.accept(Object.assign(socket as Socket, { [NOTE]: note }))
  },
}

const nodeServer = createServer(
  { maxHeaderSize: LIMITS.headerBytes, requireHostHeader: false },
  (request, response) => {
    take(request, response)
  },
)
nodeServer.maxHeadersCount = 0
nodeServer.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
  take(request, response)
})
const nodes: Parser = {
  accept(socket, note) {
    nodeServer.emit('connection', Object.assign(socket, { [NOTE]: note }))
  },
}

/** What a parser makes of bytes that come in these pieces. */
async function read(parser: Parser, pieces: readonly string[]): Promise<Read[]> {
  const seen: Read[] = []
  const [caller, side] = duplexPair()
  parser.accept(side, (one) => void seen.push(one))
  for (const end of [caller, side]) end.on('error', () => undefined)
  caller.resume()
  for (const piece of pieces) {
    if (caller.writable) caller.write(Buffer.from(piece, 'latin1'))
    await turns(2)
  }
  // As long as another request is found.
  for (let before = -1; before < seen.length; await turns(6)) before = seen.length
  caller.destroy()
  side.destroy()
  return seen
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await new Promise((resolve) => setImmediate(resolve))
}

const GOOD = 'POST /a?b HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 5\r\nX-Two: \t2 \r\n\r\nhello'
const CHUNKED =
  'PUT /c HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX: 1\r\n\r\n'
const PLAIN = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n'
const SEEDS = [GOOD, CHUNKED, PLAIN, ...[REFUSED, REFUSED_ALONE, CUT, FORWARDED].flat().map(({ bytes }) => bytes)]

function cut(random: Random, text: string): string[] {
  if (random.chance(0.6)) return [text]
  const pieces: string[] = []
  for (let at = 0; at < text.length;) {
    const length = random.pick([1, 2, 7, 30, 200, 5_000])
    pieces.push(text.slice(at, at + length))
    at += length
  }
  return pieces.length > 60 ? [text] : pieces
}

async function compare(text: string, pieces: readonly string[]): Promise<number> {
  const [mine, theirs] = await Promise.all([read(ours, pieces), read(nodes, [text])])
  const heads = (reads: readonly Read[]) => reads.map(({ line, fields }) => ({ line, fields }))
  expect(heads(theirs.slice(0, mine.length)), JSON.stringify(text)).toEqual(heads(mine))
  // What is malformed further on makes the other parser forget the bodies before it.
  for (const [i, { rest }] of mine.entries()) {
    const other = theirs[i]?.rest
    if (rest !== undefined && other !== undefined) expect(rest, JSON.stringify(text)).toEqual(other)
  }
  return mine.filter(({ rest }, i) => rest !== undefined && theirs[i]?.rest !== undefined).length
}

describe('what is taken for requests, node:http takes for the same ones', () => {
  it('each of the cases of smuggling, whole and byte by byte', async () => {
    for (const text of SEEDS) {
      await compare(text, [text])
      if (text.length < 400) await compare(text, text.split(/(?<=[\r\n:])/))
    }
  })

  it('requests one behind the other, cut anywhere', async () => {
    const text = GOOD + CHUNKED + PLAIN + GOOD
    expect(await compare(text, [text])).toBe(4)
    for (let at = 1; at < text.length; at += 1) expect(await compare(text, [text.slice(0, at), text.slice(at)])).toBe(4)
  })

  const random = createRandom()
  it(`${CASES} mutations of them (SEED=${random.seed})`, { timeout: 300_000 }, async () => {
    let taken = 0
    for (let left = CASES; left > 0; left -= 1) {
      const text = random.many(1 + random.below(3), () => mutate(random, random.pick(SEEDS))).join('') + PLAIN
      taken += await compare(text, cut(random, text))
    }
    // Otherwise nothing was compared.
    expect(taken).toBeGreaterThan(CASES / 20)
  })
})
