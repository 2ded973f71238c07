import { createServer, type Http2Session, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { freePort } from './free-port.ts'

/** One request as the backend saw it. */
export interface Http2Recorded {
  readonly method: string
  readonly path: string
  /** All fields, flat, pseudo-header fields included. */
  readonly raw: readonly string[]
  /** The same as an object; of fields that occur more often, the last. */
  readonly headers: Readonly<Record<string, string>>
  /** The connection it came on, counted from 1. */
  readonly connection: number
  body: Buffer
  trailers: readonly string[] | undefined
  state: 'open' | 'complete' | 'aborted'
}

export type Http2Handler = (stream: ServerHttp2Stream, recorded: Http2Recorded) => void

export interface FakeHttp2Upstream {
  readonly url: string
  readonly port: number
  readonly requests: Http2Recorded[]
  /** Open connections. */
  readonly sessions: ReadonlySet<ServerHttp2Session>
  stop(): Promise<void>
}

/**
 * A backend that speaks HTTP/2 in the clear, and nothing else. By default it reads the body and answers with JSON of what
 * it saw.
 */
export async function startHttp2Upstream(
  handler?: Http2Handler,
  settings: { maxConcurrentStreams?: number } = {},
  wantedPort?: number,
): Promise<FakeHttp2Upstream> {
  const port = wantedPort ?? (await freePort())
  const requests: Http2Recorded[] = []
  const sessions = new Set<ServerHttp2Session>()
  const numbers = new WeakMap<Http2Session, number>()
  const sockets = new Set<Socket>()
  let count = 0
  const server = createServer({ settings, strictSingleValueFields: false } as object)
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('session', (session) => {
    sessions.add(session)
    numbers.set(session, (count += 1))
    session.on('close', () => sessions.delete(session))
    session.on('error', () => undefined)
  })
  server.on('stream', (stream, _headers, _flags, raw: string[]) => {
    const headers = Object.fromEntries(raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1] as string]] : [])))
    const recorded: Http2Recorded = {
      method: headers[':method'] as string,
      path: headers[':path'] as string,
      raw,
      headers,
      connection: numbers.get(stream.session as Http2Session) as number,
      body: Buffer.alloc(0),
      trailers: undefined,
      state: 'open',
    }
    requests.push(recorded)
    stream.on('error', () => undefined)
    stream.on('trailers', (_trailers, _flags, received: string[]) => (recorded.trailers = received))
    stream.on('close', () => (recorded.state = stream.aborted || stream.rstCode !== 0 ? 'aborted' : 'complete'))
    if (handler !== undefined) return handler(stream, recorded)
    answerEcho(stream, recorded)
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return {
    url: `h2c://127.0.0.1:${port}`,
    port,
    requests,
    sessions,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** Reads the whole body, then calls. */
export function readBody(stream: ServerHttp2Stream, recorded: Http2Recorded, done: () => void): void {
  const parts: Buffer[] = []
  stream.on('data', (chunk: Buffer) => {
    parts.push(chunk)
    recorded.body = Buffer.concat(parts)
  })
  stream.on('end', () => {
    if (!stream.aborted) done()
  })
}

/** Answers with JSON of what came, once the body is there. */
export function answerEcho(stream: ServerHttp2Stream, recorded: Http2Recorded): void {
  readBody(stream, recorded, () => {
    const { method, path, headers } = recorded
    stream.respond({ ':status': 200, 'content-type': 'application/json' })
    stream.end(JSON.stringify({ method, path, headers }))
  })
}
