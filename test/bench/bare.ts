/** What a proxy of node:http and undici costs that verifies nothing: the measure for what verification adds. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Pool } from 'undici'

const pool = new Pool(process.env['UPSTREAM'] ?? '', { connections: 64, pipelining: 1 })
const CONNECTION_FIELDS = new Set(['host', 'connection', 'keep-alive'])

const server = createServer((request, response) => {
  const headers: string[] = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i] as string
    if (!CONNECTION_FIELDS.has(name.toLowerCase())) headers.push(name, request.rawHeaders[i + 1] as string)
  }
  pool.dispatch(
    { path: request.url as string, method: 'GET', headers, body: null },
    {
      onRequestStart: () => undefined,
      onResponseStart: (_controller, status, fields) => void response.writeHead(status, fields),
      onResponseData: (_controller, chunk) => void response.write(chunk),
      onResponseEnd: () => void response.end(),
      onResponseError: () => void response.destroy(),
    },
  )
})
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`${JSON.stringify({ msg: 'started', proxy_port: (server.address() as AddressInfo).port })}\n`)
})
