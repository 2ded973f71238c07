import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Identity } from './certificates.ts'
import { freePort } from './free-port.ts'
import type { SigningKey } from './signer.ts'

/** Answers one request for keys. */
export type KeyHandler = (request: IncomingMessage, response: ServerResponse) => void

/** A server that publishes keys, well or badly. */
export interface KeyServer {
  /** Address of the JWK Set. */
  readonly url: string
  readonly port: number
  /** Every request that came, as it was. */
  readonly requests: { readonly method: string; readonly url: string; readonly headers: IncomingMessage['headers'] }[]
  /** From now on it answers like this. */
  answer(handler: KeyHandler): void
  /** Takes it off its port, and puts it back on the same one. */
  stop(): Promise<void>
  restart(): Promise<void>
}

/** Starts it on 127.0.0.1; with an identity it speaks TLS. */
export async function startKeyServer(handler: KeyHandler, identity?: Identity): Promise<KeyServer> {
  let current = handler
  const requests: KeyServer['requests'] = []
  const serve: KeyHandler = (request, response) => {
    requests.push({ method: request.method as string, url: request.url as string, headers: request.headers })
    response.on('error', () => undefined)
    current(request, response)
  }
  const server = identity === undefined ? createServer(serve) : createTlsServer(identity, serve)
  server.on('tlsClientError', () => undefined)
  const port = await freePort()
  const listen = () =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => resolve())
    })
  await listen()
  return {
    url: `${identity === undefined ? 'http' : 'https'}://127.0.0.1:${port}/keys`,
    port,
    requests,
    answer: (next) => void (current = next),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
    restart: listen,
  }
}

/** The JWK Set of some keys, as text. */
export function jwksOf(...keys: readonly Pick<SigningKey, 'jwk'>[]): string {
  return JSON.stringify({ keys: keys.map(({ jwk }) => jwk) })
}

/** Publishes keys the way most issuers do. */
export function publishing(...keys: readonly Pick<SigningKey, 'jwk'>[]): KeyHandler {
  return answering(200, jwksOf(...keys))
}

/** Answers the same each time. */
export function answering(
  status: number,
  body: string,
  headers: Readonly<Record<string, string>> = { 'content-type': 'application/jwk-set+json' },
): KeyHandler {
  return (_request, response) => response.writeHead(status, headers).end(body)
}
