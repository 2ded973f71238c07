import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { CallerResponse } from '../../src/server/caller.ts'
import { createHttp2Connections, type Http2Connections, type Http2Limits } from '../../src/server/http2.ts'
import { FLAG, frame, FRAME, headers, openHttp2, request } from '../fakes/http2-raw.ts'

let server: Server
let connections: Http2Connections
let port: number
/** Requests that wait for their answer. */
const waiting: CallerResponse[] = []
let gone = 0
/** Connections that stand. */
const sockets = new Set<Socket>()

async function start(limits: Partial<Http2Limits>): Promise<void> {
  connections = createHttp2Connections({
    limits: {
      headerBytes: 32_768,
      concurrentStreams: 100,
      keepAliveTimeoutMs: 60_000,
      sendTimeoutMs: 60_000,
      ...limits,
    },
    handle: (_request, response) => {
      waiting.push(response)
      response.on('close', () => (gone += 1))
    },
    onUnreadable: () => undefined,
  })
  server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    connections.accept(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as AddressInfo).port
}
beforeEach(() => {
  waiting.splice(0)
  gone = 0
})
afterEach(() => {
  connections.close()
  connections.cut()
  server.close()
})

describe('a caller of HTTP/2 whose requests are silent', () => {
  beforeEach(() => start({ pingAfterMs: 300, pingTimeoutMs: 600 }))
  const pings = (frames: readonly { type: number; flags: number }[]) =>
    frames.filter(({ type, flags }) => type === FRAME.ping && flags === 0).length

  it('is asked whether it is still there, and lives on if it answers', async () => {
    const raw = await openHttp2(port)
    raw.send(headers(1, request('/watch')))
    await vi.waitFor(() => expect(pings(raw.frames)).toBeGreaterThanOrEqual(3), 10_000)
    expect([raw.closed, gone]).toEqual([false, 0])
    waiting[0]?.writeHead(200, [])
    waiting[0]?.end('at last')
    const last = await raw.wait(({ type, id }) => type === FRAME.data && id === 1)
    expect(last?.payload.toString()).toBe('at last')
    await vi.waitFor(() => expect(gone).toBe(1), 5_000)
    raw.close()
  })

  it('is let go of if it does not answer', async () => {
    const raw = await openHttp2(port, false)
    raw.send(headers(1, request('/watch')))
    expect(await raw.ended()).toBe(true)
    expect(pings(raw.frames)).toBe(1)
    await vi.waitFor(() => expect(gone).toBe(1), 5_000)
  })

  it('is not asked while it has none', async () => {
    const raw = await openHttp2(port)
    raw.send(headers(1, request('/')))
    await vi.waitFor(() => expect(waiting).toHaveLength(1), 5_000)
    waiting[0]?.writeHead(200, [])
    waiting[0]?.end('ok')
    await raw.wait(({ type, id }) => type === FRAME.data && id === 1)
    const before = pings(raw.frames)
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    expect(pings(raw.frames)).toBe(before)
    raw.close()
  })
})

describe('a caller of HTTP/2 that takes nothing at all', () => {
  it('is let go of, also at the end of its connection', async () => {
    await start({ sendTimeoutMs: 500, keepAliveTimeoutMs: 500 })
    const raw = await openHttp2(port)
    const window = Buffer.from([0x7f, 0xff, 0, 0])
    raw.send(
      frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.from([0, 4]), window])),
      frame(FRAME.windowUpdate, 0, 0, window),
    )
    await raw.wait(({ type, flags }) => type === FRAME.settings && flags === FLAG.ack)
    raw.socket.pause()
    raw.send(headers(1, request('/endless')))
    await vi.waitFor(() => expect(waiting).toHaveLength(1), 5_000)
    const chunk = Buffer.alloc(256 * 1024)
    const [response] = waiting
    response?.writeHead(200, [])
    const more = () => {
      if (response?.write(chunk)) setImmediate(more)
      else response?.once('drain', more)
    }
    more()
    await vi.waitFor(() => expect(gone).toBe(1), 10_000)
    await vi.waitFor(() => expect(sockets.size).toBe(0), 10_000)
    raw.close()
  })
})
