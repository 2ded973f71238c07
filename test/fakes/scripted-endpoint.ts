import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One answer to be given. */
export interface Scripted {
  readonly status?: number
  /** A text is sent as it is, anything else as JSON. */
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

/** An endpoint of an issuer that answers what it is told to, the last answer for ever. */
export interface ScriptedEndpoint {
  readonly url: string
  readonly seen: { readonly path: string; readonly headers: IncomingHttpHeaders; readonly form: URLSearchParams }[]
  answer(...answers: readonly Scripted[]): void
  stop(): Promise<void>
}

/** Starts one on a free port of 127.0.0.1. */
export async function startScriptedEndpoint(...first: readonly Scripted[]): Promise<ScriptedEndpoint> {
  const seen: ScriptedEndpoint['seen'] = []
  let script = [...first]
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const form = new URLSearchParams(Buffer.concat(chunks).toString('utf8'))
      seen.push({ path: request.url ?? '', headers: request.headers, form })
      const { status = 200, body, headers } = (script.length > 1 ? script.shift() : script[0]) ?? { body: '' }
      const isText = typeof body === 'string'
      response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...headers })
      response.end(isText ? body : JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    answer: (...answers) => void (script = [...answers]),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
