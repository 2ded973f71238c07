import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import type { Random } from './random.ts'

/** Length of a download in bytes: more than all buffers on the way hold. */
export const DOWNLOAD_BYTES = 1024 * 1024
const DOWNLOAD = Buffer.alloc(DOWNLOAD_BYTES, 'x')
/** Longest time until a slow answer, in milliseconds. */
const SLOW_MS = 100
/** How soon after an answer a connection is closed without a word, in milliseconds: about when it is used again. */
const CLOSE_WITHIN_MS = 3

export interface SoakBackend {
  readonly url: string
  /** How often the request of this number arrived. */
  arrivals(id: number): number
  connections(): number
  stop(): Promise<void>
}

const BUSY = Symbol('busy')
type Connection = Socket & { [BUSY]?: boolean }

/**
 * Starts a backend with bad manners: `/once/N` is counted and answered, and half of the connections are closed a moment
 * after an answer, unless another request has arrived by then. `/download` is long, `/slow` is slow, WebSockets echo.
 */
export async function startSoakBackend(random: Random): Promise<SoakBackend> {
  const arrivals = new Map<number, number>()
  const connections = new Set<Connection>()
  const sockets = new WebSocketServer({ noServer: true })
  const server = createServer((request, response) => {
    const connection: Connection = request.socket
    connection[BUSY] = true
    response.on('finish', () => {
      connection[BUSY] = false
      if (random() < 0.5)
        setTimeout(() => connection[BUSY] !== true && connection.destroy(), random() * CLOSE_WITHIN_MS)
    })
    answer(request, response)
  })

  function answer(request: IncomingMessage, response: ServerResponse): void {
    const url = request.url as string
    if (url.startsWith('/once/')) {
      const id = Number(url.slice(6))
      arrivals.set(id, (arrivals.get(id) ?? 0) + 1)
    }
    if (url === '/download') return void response.end(DOWNLOAD)
    if (url === '/slow') return void setTimeout(() => response.end('slow'), random() * SLOW_MS)
    let bytes = 0
    request.on('data', (chunk: Buffer) => (bytes += chunk.length))
    request.on('end', () => response.end(String(bytes)))
    request.on('error', () => undefined)
  }

  server.on('connection', (socket: Connection) => {
    connections.add(socket)
    socket.on('close', () => connections.delete(socket))
  })
  server.on('upgrade', (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('message', (data, isBinary) => client.send(data, { binary: isBinary }))
      client.on('error', () => undefined)
    })
  })
  server.on('clientError', (_error, socket) => void socket.destroy())
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrivals: (id) => arrivals.get(id) ?? 0,
    connections: () => connections.size,
    stop: () =>
      new Promise((done) => {
        server.close(() => done())
        for (const socket of connections) socket.destroy()
      }),
  }
}
