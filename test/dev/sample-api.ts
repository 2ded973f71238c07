import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface SampleApi {
  readonly port: number
  stop(): Promise<void>
}

/** Header fields by which bearward says who sent a request. */
const IDENTITY_FIELD = /^x-auth-/

/**
 * Starts an API on 127.0.0.1 that answers every request with method, path and identity header fields, as JSON.
 *
 * @param port - 0 for any free one
 */
export async function startSampleApi(port: number): Promise<SampleApi> {
  const server = createServer((request, response) => {
    const { method, url: path, headers } = request
    const identity = Object.fromEntries(Object.entries(headers).filter(([name]) => IDENTITY_FIELD.test(name)))
    const body = `${JSON.stringify({ method, path, identity }, null, 2)}\n`
    request.resume()
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
