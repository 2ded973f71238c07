import { spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw } from '../fakes/raw.ts'
import { startUpstream, type FakeUpstream, type Handler } from '../fakes/upstream.ts'

/** The sidecar is a process of its own here, so that its memory can be looked at. */
const MAIN = resolve(import.meta.dirname, '../../src/main.ts')
const MIB = 1024 * 1024
const SIZE = 64 * MIB
/** A piece of the body; the whole is this, over and over. */
const PIECE = randomBytes(64 * 1024)
const SHA = (() => {
  const digest = createHash('sha256')
  for (let i = 0; i < SIZE / PIECE.length; i += 1) digest.update(PIECE)
  return digest.digest('hex')
})()

let issuer: AuthorizationServer
let upstream: FakeUpstream
let child: ChildProcess
let proxyPort = 0
let handler: Handler
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((request, response, recorded) => handler(request, response, recorded))
  const config = join(folder, 'bearward.yaml')
  const lines = [
    `issuers: [{ issuer: "${issuer.issuer}", audience: "${issuer.audience}" }]`,
    `upstream: ${upstream.url}`,
    'listen: { proxy: "127.0.0.1:0", ops: "127.0.0.1:0" }',
  ]
  writeFileSync(config, lines.join('\n'))
  child = spawn(process.execPath, ['--max-semi-space-size=2', MAIN, 'serve', '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let log = ''
  child.stdout?.on('data', (chunk: Buffer) => (log += chunk.toString()))
  while (!log.includes('"msg":"keys loaded"')) await new Promise((resolve_) => setTimeout(resolve_, 20))
  proxyPort = Number(/"proxy_port":(\d+)/.exec(log)?.[1])
})

afterAll(async () => {
  child.kill('SIGINT')
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

/** Resident memory of the sidecar in bytes. */
function resident(): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024
}

/** The most memory it takes while something runs for the second time, above what it took before: heaps grow at first. */
async function growthWhile(run: () => Promise<void>): Promise<number> {
  await run()
  const before = resident()
  let peak = before
  const timer = setInterval(() => (peak = Math.max(peak, resident())), 20)
  await run()
  clearInterval(timer)
  return Math.max(peak, resident()) - before
}

function big(): Readable {
  let left = SIZE / PIECE.length
  return new Readable({
    read() {
      this.push((left -= 1) >= 0 ? PIECE : null)
    },
  })
}

const authorization = () => `Bearer ${issuer.signAccessToken()}`

function send(method: string, headers: Record<string, string | number>, body?: Readable): Promise<IncomingMessage> {
  return new Promise((done, reject) => {
    const all = { authorization: authorization(), ...headers }
    const request = httpRequest(
      { port: proxyPort, host: '127.0.0.1', method, path: '/a', headers: all, agent: false },
      done,
    )
    request.on('error', reject)
    if (body === undefined) request.end()
    else body.pipe(request)
  })
}

async function digest(stream: AsyncIterable<unknown>, delayMs = 0): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let bytes = 0
  let pauses = 0
  for await (const chunk of stream) {
    bytes += (chunk as Buffer).length
    hash.update(chunk as Buffer)
    // A reader that is slow now and then is enough to fill every buffer on the way.
    if (delayMs > 0 && bytes > pauses * 8 * MIB) {
      pauses += 1
      await new Promise((resolve_) => setTimeout(resolve_, delayMs))
    }
  }
  return { bytes, sha256: hash.digest('hex') }
}

describe('64 MiB', () => {
  it.each([
    ['with a length', { 'content-length': SIZE }],
    ['in chunks', { 'transfer-encoding': 'chunked' }],
  ])('up to a slow backend, %s: whole, in flat memory', async (_how, headers) => {
    let seen: { bytes: number; sha256: string } | undefined
    handler = (request, response) =>
      void digest(request, 100).then((result) => {
        seen = result
        response.end('done')
      })
    const growth = await growthWhile(async () => {
      const response = await send('POST', headers, big())
      expect(response.statusCode).toBe(200)
      await digest(response)
    })
    expect(seen).toEqual({ bytes: SIZE, sha256: SHA })
    expect(growth).toBeLessThan(48 * MIB)
  })

  it.each([
    ['with a length', { 'content-length': SIZE }],
    ['in chunks', {}],
  ])('down to a slow caller, %s: whole, in flat memory', async (_how, headers) => {
    handler = (_request, response) => {
      response.writeHead(200, headers)
      big().pipe(response)
    }
    const growth = await growthWhile(async () => {
      expect(await digest(await send('GET', {}), 100)).toEqual({ bytes: SIZE, sha256: SHA })
    })
    expect(growth).toBeLessThan(48 * MIB)
  })

  it('up to a backend that reads nothing: the caller is held back', async () => {
    const stalled: IncomingMessage[] = []
    handler = (request) => void stalled.push(request)
    let sent = 0
    const body = big().on('data', (chunk: Buffer) => (sent += chunk.length))
    const answered = send('POST', { 'content-length': SIZE }, body).catch(() => undefined)
    let before = -1
    // Until nothing moves for half a second.
    while (before !== sent || sent === 0) {
      before = sent
      await new Promise((resolve_) => setTimeout(resolve_, 500))
    }
    expect(sent).toBeLessThan(24 * MIB)
    stalled[0]?.resume().on('end', () => stalled[0]?.socket.end('HTTP/1.1 204 No Content\r\n\r\n'))
    expect((await answered)?.statusCode).toBe(204)
    expect(sent).toBe(SIZE)
  })

  it('both ways at once', async () => {
    handler = (request, response) => void request.pipe(response)
    const response = await send('POST', { 'transfer-encoding': 'chunked' }, big())
    expect(await digest(response)).toEqual({ bytes: SIZE, sha256: SHA })
  })
})

describe('a response', () => {
  it('that comes before the end of the request is passed on at once, and the connection lives', async () => {
    handler = (_request, response) => void response.writeHead(413, { 'content-length': 0 }).end()
    const { socket, received } = await openRaw(proxyPort)
    const head = `POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: ${authorization()}\r\nContent-Length: 10\r\n\r\n`
    socket.write(`${head}part`)
    await expect.poll(received).toMatch(/^HTTP\/1\.1 413 /)
    handler = (_request, response) => void response.end('next')
    socket.write(`-the-rGET /a HTTP/1.1\r\nHost: a\r\nAuthorization: ${authorization()}\r\n\r\n`)
    await expect.poll(received).toMatch(/HTTP\/1\.1 200 [\s\S]*next/)
    socket.destroy()
  })

  it.each([
    [200, 'HEAD', { 'content-length': '5' }],
    [204, 'GET', {}],
    [304, 'GET', { etag: '"a"' }],
    [200, 'GET', { 'content-length': '0' }],
  ])('%i to %s without a body', async (status, method, headers) => {
    handler = (_request, response) => void response.writeHead(status, headers).end()
    const response = await send(method, {})
    expect(response.statusCode).toBe(status)
    expect((await digest(response)).bytes).toBe(0)
    expect(response.headers).toMatchObject(headers)
  })

  it('whose first byte comes early is not held back', async () => {
    let finish: (() => void) | undefined
    handler = (_request, response) => {
      response.writeHead(200)
      response.write('first')
      finish = () => void response.end('last')
    }
    const response = await send('GET', {})
    const first = await new Promise<Buffer>((resolve_) => response.once('data', resolve_))
    expect(first.toString()).toBe('first')
    finish?.()
    await digest(response)
  })
})

describe('Expect: 100-continue', () => {
  const head = (token: string) =>
    `POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: ${token}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n`

  it('is answered once the gate said yes', async () => {
    handler = (request, response, recorded) => {
      request.on('data', (chunk: Buffer) => (recorded.bodyBytes += chunk.length))
      request.on('end', () => response.end('done'))
    }
    const { socket, received } = await openRaw(proxyPort)
    socket.write(head(authorization()))
    await expect.poll(received).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    socket.write('body')
    await expect.poll(received).toMatch(/HTTP\/1\.1 200 [\s\S]*done/)
    expect(upstream.requests.at(-1)).toMatchObject({ bodyBytes: 4 })
    expect(upstream.requests.at(-1)?.headers).not.toHaveProperty('expect')
    socket.destroy()
  })

  it('is not answered when it said no', async () => {
    const before = upstream.requests.length
    const { socket, received } = await openRaw(proxyPort)
    socket.write(head('Bearer garbage'))
    await expect.poll(received).toMatch(/^HTTP\/1\.1 401 [\s\S]*token_malformed/)
    expect(received()).not.toContain('100 Continue')
    expect(upstream.requests).toHaveLength(before)
    socket.destroy()
  })
})
