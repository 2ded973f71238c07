import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { findBrowser, startBrowser, type Browser } from '../fakes/browser.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'

const program = findBrowser()
if (program === undefined) console.warn('skipped: there is no Chromium here')

/** How long the backend keeps silent between two events: longer than any other response may. */
const SILENCE_MS = 3_000

let issuer: AuthorizationServer
let clear: FakeSidecar
let tls: FakeSidecar
let browser: Browser
/** Pages of an origin that may read refusals, and of one that may not. */
let page = ''
let strangePage = ''
const folder = mkdtempSync(join(tmpdir(), 'bearward-browser-'))
const seen: { readonly line: string; readonly headers: IncomingMessage['headers'] }[] = []
const backend = createServer(serve)
const webSockets = new WebSocketServer({ noServer: true })
const pages = [0, 1].map(() =>
  createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>page</title>')
  }),
)

/** An API that knows CORS, as one behind a browser app must. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  seen.push({ line: `${request.method} ${request.url}`, headers: request.headers })
  const cors = {
    'access-control-allow-origin': request.headers.origin ?? '*',
    'access-control-allow-headers': 'authorization, content-type',
    'access-control-allow-methods': 'GET, PUT',
    'timing-allow-origin': '*',
  }
  if (request.method === 'OPTIONS') return void response.writeHead(204, cors).end()
  if (!request.url?.startsWith('/events')) return void response.writeHead(200, cors).end(`hello ${identityOf(request)}`)
  response.writeHead(200, { ...cors, 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  response.write('data: first\n\n')
  setTimeout(() => response.write('data: second\n\n'), SILENCE_MS)
}

const identityOf = ({ headers }: IncomingMessage) => String(headers['x-auth-subject'])

const listen = (server: ReturnType<typeof createServer>) =>
  new Promise<string>((done) =>
    server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)),
  )

beforeAll(async () => {
  if (program === undefined) return
  issuer = await startAuthorizationServer()
  backend.on('upgrade', (request, socket, head) => {
    seen.push({ line: `WebSocket ${request.url}`, headers: request.headers })
    webSockets.handleUpgrade(request, socket, head, (client) =>
      client.on('message', (text) => client.send(`echo ${text}`)),
    )
  })
  const upstream = await listen(backend)
  ;[page = '', strangePage = ''] = await Promise.all(pages.map(listen))
  const { cert, key } = createAuthority('ours').issue('127.0.0.1')
  writeFileSync(join(folder, 'cert.pem'), cert)
  writeFileSync(join(folder, 'key.pem'), key)
  const config = {
    issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
    upstream: { url: upstream, idle_timeout: '1s' },
    cors: { origins: [page] },
    rules: [{ name: 'open', prefix: ['/open', '/events/open'], access: 'public' }],
  }
  clear = await startSidecar({ config })
  const files = { certificate_file: join(folder, 'cert.pem'), key_file: join(folder, 'key.pem') }
  tls = await startSidecar({ config: { ...config, listen: { tls: files } } })
  await Promise.all([clear.ready(), tls.ready()])
  browser = await startBrowser(program)
}, 60_000)
beforeEach(() => void seen.splice(0))
afterAll(async () => {
  if (program === undefined) return
  await browser.stop()
  for (const server of [...pages, backend]) server.close().closeAllConnections()
  await stopSidecars()
  await issuer.stop()
  rmSync(folder, { recursive: true })
})

/** An expression: fetches and tells what the page could read. */
const fetching = (url: string, token: string, more = '') => `
  fetch(${JSON.stringify(url)}, { headers: { authorization: 'Bearer ${token}' }, ${more} }).then(async (response) => ({
    status: response.status,
    text: await response.text(),
    challenge: response.headers.get('www-authenticate'),
    protocol: performance.getEntriesByName(${JSON.stringify(url)}).at(-1)?.nextHopProtocol,
  }), (error) => ({ error: String(error) }))`

interface Fetched {
  readonly status?: number
  readonly text?: string
  readonly challenge?: string
  readonly protocol?: string
  readonly error?: string
}

describe.skipIf(program === undefined)('a page of another origin, in a real browser', { timeout: 60_000 }, () => {
  it.each([
    ['HTTP/1.1', () => clear.proxy, 'http/1.1'],
    ['HTTP/2 over TLS', () => tls.proxy.replace('http:', 'https:'), 'h2'],
  ])('fetches with its token over %s, behind a preflight without one', async (_how, origin, protocol) => {
    const url = `${origin()}/orders`
    const token = issuer.signAccessToken({ sub: 'alice' })
    const got = await browser.run<Fetched>(page, fetching(url, token, `method: 'PUT', body: 'x'`))
    expect(got).toMatchObject({ status: 200, text: 'hello alice', protocol })
    expect(seen.map(({ line }) => line)).toEqual(['OPTIONS /orders', 'PUT /orders'])
    expect(Object.keys(seen[0]?.headers ?? {}).filter((name) => name.startsWith('x-auth-'))).toEqual([])
  })

  it('whose token is refused reads status, code and challenge', async () => {
    const url = `${clear.proxy}/refused`
    const token = issuer.signAccessToken({ exp: Math.floor(Date.now() / 1000) - 3600 })
    const got = await browser.run<Fetched>(page, fetching(url, token))
    expect(got).toMatchObject({
      status: 401,
      challenge: expect.stringMatching(/^Bearer .*error="invalid_token"/) as string,
    })
    expect(JSON.parse(got.text ?? '')).toMatchObject({ status: 401, code: 'token_expired' })
    expect(seen.map(({ line }) => line)).toEqual(['OPTIONS /refused'])
  })

  it('that is not of an origin named cannot read a refusal', async () => {
    const got = await browser.run<Fetched>(strangePage, fetching(`${clear.proxy}/orders`, 'garbage'))
    expect(got).toEqual({ error: 'TypeError: Failed to fetch' })
  })

  it('gets the first event of a stream at once, and the next one after a silence, from an EventSource', async () => {
    const got = await browser.run<{ events: string[]; gapMs: number }>(
      page,
      `new Promise((done, fail) => {
        const source = new EventSource(${JSON.stringify(`${clear.proxy}/events/open`)})
        const events = []
        let firstMs = 0
        source.onmessage = ({ data }) => {
          events.push(data)
          if (events.length === 1) return void (firstMs = performance.now())
          source.close()
          done({ events, gapMs: performance.now() - firstMs })
        }
        source.onerror = () => { source.close(); fail(new Error('cut off after ' + events)) }
      })`,
    )
    expect(got.events).toEqual(['first', 'second'])
    // The first one did not wait for the second.
    expect(got.gapMs).toBeGreaterThan(SILENCE_MS / 2)
    expect(seen.map(({ line }) => line)).toEqual(['GET /events/open'])
  })

  it('reads a stream of events with its token by fetch, over HTTP/2', async () => {
    const url = `${tls.proxy.replace('http:', 'https:')}/events`
    const token = issuer.signAccessToken({ sub: 'alice' })
    const got = await browser.run<string[]>(
      page,
      `fetch(${JSON.stringify(url)}, { headers: { authorization: 'Bearer ${token}' } }).then(async ({ body }) => {
        const reader = body.pipeThrough(new TextDecoderStream()).getReader()
        const chunks = [(await reader.read()).value, (await reader.read()).value]
        await reader.cancel()
        return chunks
      })`,
    )
    expect(got).toEqual(['data: first\n\n', 'data: second\n\n'])
  })

  it('opens a WebSocket where the rules let it, and nowhere else', async () => {
    const talk = (path: string) => `new Promise((done) => {
      const socket = new WebSocket(${JSON.stringify(clear.proxy.replace('http', 'ws'))} + '${path}')
      socket.onopen = () => socket.send('hi')
      socket.onmessage = ({ data }) => { socket.onclose = ({ code }) => done([data, code]); socket.close(1000) }
      socket.onclose = ({ code }) => done([code])
    })`
    expect(await browser.run(page, talk('/open/ws'))).toEqual(['echo hi', 1000])
    expect(await browser.run(page, talk('/ws'))).toEqual([1006])
    expect(seen.map(({ line }) => line)).toEqual(['WebSocket /open/ws'])
    expect(clear.lastRequest()).toMatchObject({ code: 'credentials_missing', path: '/ws' })
  })
})
