import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as TlsAgent, request as httpsRequest, type RequestOptions } from 'node:https'

/** What came back, whole. */
export interface Http1Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
}

/** A caller with one connection, which it uses again for as long as the server lets it. */
export interface KeepAliveCaller {
  /** Rejects when the connection breaks before the whole answer is there. With a body it is a POST. */
  send(path: string, body?: Buffer): Promise<Http1Answer>
  close(): void
}

/** @param ca - the authority to trust, for `https:` */
export function createKeepAliveCaller(origin: string, token: string, ca?: string): KeepAliveCaller {
  const [agent, send] = connectorOf(origin)
  return {
    send: (path, body) =>
      new Promise((resolve, reject) => {
        const headers = {
          authorization: `Bearer ${token}`,
          ...(body !== undefined && { 'content-length': body.length }),
        }
        const method = body === undefined ? 'GET' : 'POST'
        send(
          `${origin}${path}`,
          { agent, method, headers, ca },
          (response) => void read(response).then(resolve, reject),
        )
          .on('error', reject)
          .end(body)
      }),
    close: () => agent.destroy(),
  }
}

export interface SlowUpload {
  readonly token: string
  readonly ca: string | undefined
  readonly body: Buffer
  readonly durationMs: number
}

/** Sends a body in ten parts over some time, without telling its length. */
export function openSlowly(origin: string, { token, ca, body, durationMs }: SlowUpload): Promise<Http1Answer> {
  const [, send] = connectorOf(origin)
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` }
    const request = send(`${origin}/upload`, { agent: false, method: 'POST', headers, ca }, (response) => {
      void read(response).then(resolve, reject)
    })
    request.on('error', reject)
    const size = Math.ceil(body.length / 10)
    let sent = 0
    const next = () => {
      if (sent >= body.length) return void request.end()
      request.write(body.subarray(sent, (sent += size)))
      setTimeout(next, durationMs / 10)
    }
    next()
  })
}

type Send = (url: string, options: RequestOptions, onResponse: (response: IncomingMessage) => void) => ClientRequest

function connectorOf(origin: string): [Agent, Send] {
  const settings = { keepAlive: true, maxSockets: 1 }
  return origin.startsWith('https:') ? [new TlsAgent(settings), httpsRequest] : [new Agent(settings), httpRequest]
}

async function read(response: IncomingMessage): Promise<Http1Answer> {
  let text = ''
  for await (const chunk of response) text += String(chunk)
  return { status: response.statusCode ?? 0, headers: response.headers, text }
}
