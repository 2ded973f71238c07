import { startAuthorizationServer, type AuthorizationServer } from './authorization-server.ts'
import { openRaw } from './raw.ts'
import { ok, startRecorder, type Recorder } from './recorder.ts'
import { startSidecar, type FakeSidecar } from './sidecar.ts'

/** What became of bytes that somebody sent. */
export interface Outcome {
  /** Statuses of the answers, interim ones included, in their order. */
  readonly statuses: number[]
  /** Codes of refusals among them. */
  readonly codes: string[]
  readonly text: string
  /** Whether the sidecar closed the connection. */
  readonly closed: boolean
  /** What the backend got of it, request by request. */
  readonly backend: string[]
}

export interface AttackOptions {
  /** Answers, interim ones included, after which no more are waited for; by default it is until the connection is closed. */
  readonly answers?: number
  /** Sent one after the other, once the bytes before have been answered or dealt with. */
  readonly then?: readonly string[]
}

/** A sidecar under attack, with a backend that keeps what it gets. */
export interface Target {
  readonly issuer: AuthorizationServer
  readonly backend: Recorder
  readonly sidecar: FakeSidecar
  /**
   * Sends bytes, one per character, and waits until they have had their effect. Then sends a good request on another
   * connection, which must be served, and must be the only thing that came to the backend besides.
   */
  attack(bytes: string, options?: AttackOptions): Promise<Outcome>
  stop(): Promise<void>
}

/** How long a connection may stay open that is neither answered nor closed, in milliseconds. */
const PATIENCE_MS = 400
const CANARY = '/public/canary'

/** Starts it: `/public` and `/healthz` need no token, `/admin` needs a role, all else a token. */
export async function startTarget(config: Record<string, unknown> = {}): Promise<Target> {
  const issuer = await startAuthorizationServer()
  const backend = await startRecorder()
  const sidecar = await startSidecar({
    config: {
      issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
      upstream: backend.url,
      rules: [
        { name: 'public', prefix: ['/public'], exact: ['/healthz'], access: 'public' },
        { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
      ],
      ...config,
    },
  })
  await sidecar.ready()

  const attack: Target['attack'] = async (bytes, { answers = Infinity, then = [] } = {}) => {
    const before = backend.requests.length
    const sent = await converse(sidecar.proxyPort, [bytes, ...then], answers)
    const answer = backend.answer
    backend.answer = (socket, request) => (request.includes(CANARY) ? ok(socket) : answer(socket, request))
    const canary = await converse(sidecar.proxyPort, [`GET ${CANARY} HTTP/1.1\r\nHost: api.test\r\n\r\n`], 1)
    backend.answer = answer
    const seen = backend.requests.splice(before)
    const isCanary = (request: string) => request.startsWith(`GET ${CANARY} HTTP/1.1\r\nHost: api.test\r\n`)
    if (canary.text.match(/^HTTP\/1\.1 200 /) === null || seen.filter(isCanary).length !== 1) {
      throw new Error(`not serving as before: ${JSON.stringify({ canary: canary.text, seen })}`)
    }
    return { ...sent, ...readAnswers(sent.text), backend: seen.filter((request) => !isCanary(request)) }
  }
  return {
    issuer,
    backend,
    sidecar,
    attack,
    async stop() {
      await sidecar.stop()
      await issuer.stop()
      await backend.stop()
    },
  }
}

/** Status lines and codes of answers as they came. */
export function readAnswers(text: string): Pick<Outcome, 'statuses' | 'codes'> {
  return {
    statuses: [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1])),
    codes: [...text.matchAll(/"code":"(\w+)"/g)].map((match) => match[1] as string),
  }
}

/** Sends parts one after the other; waits for that many answers, or until the peer closes or has nothing more to say. */
async function converse(port: number, parts: readonly string[], answers: number) {
  const { socket, received } = await openRaw(port)
  let closed = false
  for (const event of ['end', 'close']) socket.on(event, () => (closed = true))
  const isDone = () => closed || received().split('HTTP/1.1 ').length > answers
  for (const part of parts) {
    socket.write(Buffer.from(part, 'latin1'))
    if (parts.length > 1) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  for (const start = performance.now(); !isDone() && performance.now() - start < PATIENCE_MS;) {
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  // The end of a connection comes right behind its last answer.
  await new Promise((resolve) => setTimeout(resolve, 2))
  socket.destroy()
  return { text: received(), closed }
}

/**
 * A request as it must arrive at the backend, byte for byte but for the request id.
 *
 * @param line - the request line
 * @param fields - the caller's fields that travel on, as lines with their line breaks
 */
export function arrival(line: string, fields: string, body = '', chunked = false): string {
  const forwarded = `x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: api.test\r\n`
  const coding = chunked ? 'transfer-encoding: chunked\r\n' : ''
  return `${line}\r\n${fields}${forwarded}${coding}x-request-id: ID\r\nconnection: keep-alive\r\n\r\n${body}`
}

/** With the request id that was made here masked, to be compared with {@link arrival}. */
export function maskId(request: string): string {
  return request.replace(/\r\nx-request-id: [\w-]+\r\n/, '\r\nx-request-id: ID\r\n')
}
