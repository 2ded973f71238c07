import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net'
import { freePort } from './free-port.ts'

/** One request as the backend saw it. */
export interface Recorded {
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly headers: IncomingMessage['headers']
  bodyBytes: number
  bodySha256: string
  /** How it ended: still running, whole, or cut off by the caller. */
  state: 'open' | 'complete' | 'aborted'
}

export interface FakeUpstream {
  readonly url: string
  readonly port: number
  readonly requests: Recorded[]
  /** Open connections. */
  connections(): number
  /** Called for each new one. */
  onConnection(run: () => void): void
  stop(): Promise<void>
}

export type Handler = (request: IncomingMessage, response: ServerResponse, recorded: Recorded) => void

/** A backend that records what it gets. By default it answers with JSON of what it saw, once it has read the body. */
export async function startUpstream(handler?: Handler, wantedPort?: number): Promise<FakeUpstream> {
  const port = wantedPort ?? (await freePort())
  const requests: Recorded[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    const recorded: Recorded = {
      method: request.method as string,
      url: request.url as string,
      rawHeaders: request.rawHeaders,
      headers: request.headers,
      bodyBytes: 0,
      bodySha256: '',
      state: 'open',
    }
    requests.push(recorded)
    response.on('close', () => (recorded.state = response.writableFinished ? 'complete' : 'aborted'))
    if (handler !== undefined) return handler(request, response, recorded)
    record(request, recorded, () => answerEcho(response, recorded))
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    connections: () => sockets.size,
    onConnection: (run) => void server.on('connection', run),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Reads the body without keeping it. */
export function record(request: IncomingMessage, recorded: Recorded, done: () => void): void {
  const digest = createHash('sha256')
  request.on('data', (chunk: Buffer) => {
    recorded.bodyBytes += chunk.length
    digest.update(chunk)
  })
  request.on('end', () => {
    recorded.bodySha256 = digest.digest('hex')
    done()
  })
}

function answerEcho(response: ServerResponse, { method, url, headers }: Recorded): void {
  const body = JSON.stringify({ method, url, headers })
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body)
}

export interface RawUpstream {
  readonly url: string
  /** Everything received, on all connections. */
  received(): string
  stop(): Promise<void>
}

/** A backend on a bare socket: records bytes, and answers each chunk of them as it is told. */
export async function startRawUpstream(answer: (socket: Socket, received: string) => void): Promise<RawUpstream> {
  let received = ''
  const sockets = new Set<Socket>()
  const server = createTcpServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      answer(socket, received)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received: () => received,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
