import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request as a provider got it. */
export interface ProviderRequest {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export interface ProviderAnswer {
  readonly status: number
  /** JSON, or text as it is. */
  readonly body: Readonly<Record<string, unknown>> | string
  readonly headers?: Readonly<Record<string, string>>
}

/** By method and path, such as `POST /oauth/token`. */
export type Routes = Readonly<Record<string, (request: ProviderRequest) => ProviderAnswer>>

export interface ProviderServer {
  readonly origin: string
  /** Every request that came. */
  readonly requests: ProviderRequest[]
  /** How often a path was asked for. */
  count(path: string): number
  /** Every answer waits for this long, in milliseconds. */
  delay(ms: number): void
  stop(): Promise<void>
}

/** Serves the routes on 127.0.0.1; `routes` is asked for the origin only after the port is known. */
export async function serveProvider(createRoutes: (origin: string) => Routes): Promise<ProviderServer> {
  const requests: ProviderRequest[] = []
  let routes: Routes = {}
  let delayMs = 0
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => {
      const { method = '', url = '', headers } = incoming
      const [path = '', query = ''] = url.split('?')
      const request = {
        method,
        path,
        query: new URLSearchParams(query),
        headers,
        body: Buffer.concat(chunks).toString('utf8'),
      }
      requests.push(request)
      const route = routes[`${method} ${path}`]
      const { status, body, headers: fields } = route?.(request) ?? { status: 404, body: 'Not Found' }
      const isText = typeof body === 'string'
      setTimeout(() => {
        response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...fields })
        response.end(isText ? body : JSON.stringify(body))
      }, delayMs)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  routes = createRoutes(origin)
  return {
    origin,
    requests,
    delay: (ms) => void (delayMs = ms),
    count: (path) => requests.filter((request) => request.path === path).length,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** A refusal in the form of RFC 6749 §5.2, with further members such as `mfa_token`. */
export function refuse(
  status: number,
  error: string,
  description: string,
  more: Readonly<Record<string, unknown>> = {},
): ProviderAnswer {
  return { status, body: { error, error_description: description, ...more } }
}

const FORM = 'application/x-www-form-urlencoded'

/**
 * Reads parameters by the Content-Type alone.
 *
 * @returns undefined for an encoding that is not taken, or a body that is not in it
 */
export function readParameters(
  { headers, body }: ProviderRequest,
  { json }: { readonly json: boolean },
): ReadonlyMap<string, string> | undefined {
  const type = headers['content-type']?.split(';', 1)[0]
  if (type === FORM) return new Map(new URLSearchParams(body))
  if (!json || type !== 'application/json') return undefined
  try {
    return new Map(Object.entries(JSON.parse(body) as Record<string, string>))
  } catch {
    return undefined
  }
}

export interface ProviderClient {
  readonly clientId: string
  /** Absent for a public client. */
  readonly secret?: string
}

/** The client of a request, by `none`, `client_secret_post` or `client_secret_basic` (RFC 6749 §2.3.1), one of them at a time. */
export function authenticate(
  { headers }: ProviderRequest,
  parameters: ReadonlyMap<string, string>,
  clients: readonly ProviderClient[],
): ProviderClient | undefined {
  const basic = /^Basic (.+)$/.exec(headers.authorization ?? '')?.[1]
  if (basic !== undefined && parameters.has('client_secret')) return undefined
  const [id, secret] =
    basic === undefined
      ? [parameters.get('client_id'), parameters.get('client_secret')]
      : Buffer.from(basic, 'base64')
          .toString()
          .split(':')
          .map((part) => decodeURIComponent(part.replaceAll('+', ' ')))
  return clients.find((client) => client.clientId === id && client.secret === secret)
}
