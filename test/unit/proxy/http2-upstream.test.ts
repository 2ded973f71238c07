import { createServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import type { UpstreamRequest } from '../../../src/proxy/connection.ts'
import { createDial } from '../../../src/proxy/dial.ts'
import { createHttp2Upstream } from '../../../src/proxy/http2-upstream.ts'
import type { Upstream } from '../../../src/proxy/upstream.ts'
import { startHttp2Upstream } from '../../fakes/http2-upstream.ts'

let upstream: Upstream | undefined
afterEach(() => upstream?.close())

const TIMES = {
  connectTimeoutMs: 2_000,
  responseTimeoutMs: 20_000,
  idleTimeoutMs: 0,
  bodyTimeoutMs: 20_000,
  connections: 2,
}
const to = (port: number) => createDial({ host: '127.0.0.1', port }, undefined)

/** A request without a body, and what became of it. */
function ask(path: string) {
  const said: string[] = []
  const failures: CodedError[] = []
  const request: UpstreamRequest & { cancelled: boolean } = {
    method: 'GET',
    head: '',
    http2Head: (scheme) => [':method', 'GET', ':scheme', scheme, ':authority', 'a', ':path', path],
    body: undefined,
    chunked: false,
    trailers: [],
    cancelled: false,
    blocked: false,
    connection: undefined,
    onHead: ({ status }) => void said.push(String(status)),
    onData: (chunk) => void said.push(chunk.toString()),
    onEnd: () => void said.push('end'),
    flush: () => undefined,
    onFailure: (error) => void failures.push(error),
  }
  return { request, said, failures }
}

describe('a connection to an upstream that speaks HTTP/2', () => {
  it('is asked whether it is still there when it is silent, and lives on if it answers', async () => {
    const server = await startHttp2Upstream((stream) => {
      setTimeout(() => {
        stream.respond({ ':status': 200 })
        stream.end('at last')
      }, 1_500)
    })
    const pings: number[] = []
    upstream = createHttp2Upstream({
      ...TIMES,
      dial: to(server.port),
      pingAfterMs: 200,
      pingTimeoutMs: 5_000,
    })
    const { request, said, failures } = ask('/slow')
    upstream.dispatch(request)
    await vi.waitFor(() => expect(server.sessions.size).toBe(1), 5_000)
    for (const session of server.sessions) session.on('ping', () => void pings.push(1))
    await vi.waitFor(() => expect(said.at(-1)).toBe('end'), 10_000)
    expect(failures).toEqual([])
    expect(pings.length).toBeGreaterThan(0)
    await server.stop()
  })

  it('is given up when it does not answer', async () => {
    const sockets: Socket[] = []
    // Accepts, sends its settings, and is never heard of again.
    const server = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined).resume()
      socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    upstream = createHttp2Upstream({ ...TIMES, dial: to(port), pingAfterMs: 200, pingTimeoutMs: 300 })
    const { request, failures } = ask('/lost')
    upstream.dispatch(request)
    await vi.waitFor(() => expect(failures).toHaveLength(1), 10_000)
    expect(failures[0]).toMatchObject({ code: 'upstream_timeout', detail: { cause: 'ping' } })
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })

  it('carries nothing for a caller that left while it waited', async () => {
    const server = await startHttp2Upstream(() => undefined, { maxConcurrentStreams: 1 })
    upstream = createHttp2Upstream({ ...TIMES, connections: 1, dial: to(server.port) })
    const first = ask('/first')
    upstream.dispatch(first.request)
    await vi.waitFor(() => expect(server.requests).toHaveLength(1), 5_000)
    const second = ask('/second')
    upstream.dispatch(second.request)
    second.request.cancelled = true
    first.request.connection?.cancel()
    await vi.waitFor(() => expect(second.failures).toHaveLength(1), 5_000)
    expect([first, second].map(({ failures }) => failures[0]?.code)).toEqual(['caller_gone', 'caller_gone'])
    expect(server.requests).toHaveLength(1)
    await server.stop()
  })

  it('takes nothing more once it is closed', async () => {
    upstream = createHttp2Upstream({ ...TIMES, dial: to(1) })
    upstream.close()
    const { request, failures } = ask('/late')
    upstream.dispatch(request)
    expect(failures[0]).toMatchObject({ code: 'upstream_unreachable', detail: { cause: 'shutdown' } })
  })
})
