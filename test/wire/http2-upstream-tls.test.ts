import {
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type sendUnaryData,
  type ServerUnaryCall,
} from '@grpc/grpc-js'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createSecureServer, type Http2SecureServer, type ServerHttp2Stream } from 'node:http2'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { ECHO, metadataWith, openGrpcClient } from '../fakes/grpc.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'

let issuer: AuthorizationServer
const folder = mkdtempSync(join(tmpdir(), 'bearward-h2-'))
const authority = createAuthority('ours')
const strangers = createAuthority('theirs')
const server = authority.issue('api.test', '127.0.0.1')
const client = authority.issue('bearward.test')
const stops: (() => unknown)[] = []

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}
const caFile = write('ca.pem', authority.certificate)
const strangeCaFile = write('strange-ca.pem', strangers.certificate)
const certificateFile = write('client.pem', client.cert)
const keyFile = write('client-key.pem', client.key)

beforeAll(async () => {
  issuer = await startAuthorizationServer()
})
afterEach(async () => {
  await stopSidecars()
  for (const stop of stops.splice(0)) stop()
})
afterAll(async () => {
  await issuer.stop()
  rmSync(folder, { recursive: true })
})

async function sidecarFor(upstream: Record<string, unknown>): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream },
  })
  await sidecar.ready()
  return sidecar
}

interface Seen {
  readonly headers: Record<string, unknown>
  readonly peer: string
  body: string
}

/** A backend that speaks HTTP/2 over TLS. */
async function startBackend(options: object = {}): Promise<{ url: string; seen: Seen[]; server: Http2SecureServer }> {
  const seen: Seen[] = []
  const backend = createSecureServer({ ...server, ...options })
  backend.on('stream', (stream: ServerHttp2Stream, headers) => {
    const socket = stream.session?.socket as TLSSocket
    const one: Seen = { headers, peer: String(socket.getPeerCertificate().subject?.CN), body: '' }
    seen.push(one)
    stream.on('data', (chunk: Buffer) => (one.body += chunk.toString()))
    stream.on('end', () => {
      stream.respond({ ':status': 200 })
      stream.end(`over ${socket.alpnProtocol}`)
    })
  })
  backend.on('sessionError', () => undefined)
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  stops.push(() => backend.close())
  return { url: `h2://127.0.0.1:${(backend.address() as AddressInfo).port}`, seen, server: backend }
}

const send = (sidecar: FakeSidecar, init: RequestInit = {}) =>
  fetch(`${sidecar.proxy}/orders?page=1`, {
    ...init,
    headers: { authorization: `Bearer ${issuer.signAccessToken({ sub: 'alice' })}` },
  })

describe('an upstream with h2://', () => {
  it('gets requests over TLS, with the scheme of its connection and the identity of the caller', async () => {
    const { url, seen } = await startBackend()
    const sidecar = await sidecarFor({ url, ca_file: caFile })
    const bodies = ['first', 'second', 'third']
    const answers = await Promise.all(bodies.map((body) => send(sidecar, { method: 'POST', body })))
    for (const answer of answers) expect([answer.status, await answer.text()]).toEqual([200, 'over h2'])
    expect(seen.map(({ body }) => body).sort()).toEqual([...bodies].sort())
    expect(seen[0]?.headers).toMatchObject({
      ':scheme': 'https',
      ':path': '/orders?page=1',
      'x-auth-subject': 'alice',
      'x-forwarded-proto': 'http',
    })
    expect(seen[0]?.headers).not.toHaveProperty('authorization')
  })

  it('is shown a certificate where one is configured, and has the name that is asked of it', async () => {
    const { url, seen } = await startBackend({ ca: authority.certificate, requestCert: true, rejectUnauthorized: true })
    const files = { ca_file: caFile, certificate_file: certificateFile, key_file: keyFile }
    expect((await send(await sidecarFor({ url, ...files, server_name: 'api.test' }))).status).toBe(200)
    expect(seen.map(({ peer }) => peer)).toEqual(['bearward.test'])
    expect((await send(await sidecarFor({ url, ca_file: caFile }))).status).toBe(502)
    expect((await send(await sidecarFor({ url, ...files, server_name: 'other.test' }))).status).toBe(502)
    expect(seen).toHaveLength(1)
  })

  it.each([
    ['of an authority that is not trusted', strangeCaFile],
    ['of none that the system knows', undefined],
  ])('with a certificate %s gets nothing', async (_what, file) => {
    const { url, seen } = await startBackend()
    const sidecar = await sidecarFor({ url, ...(file !== undefined && { ca_file: file }) })
    expect((await send(sidecar, { method: 'POST', body: 'secret' })).status).toBe(502)
    expect(sidecar.lastRequest()).toMatchObject({ code: 'upstream_unreachable' })
    expect(seen).toEqual([])
  })

  it.each([
    ['does not agree on HTTP/2', {}],
    ['knows nothing of ALPN', { ALPNProtocols: undefined, ALPNCallback: undefined }],
  ])('that %s gets nothing', async (_what, options) => {
    let bytes = 0
    const backend = createServer({ ...server, ...options }, () => (bytes += 1))
    backend.on('secureConnection', (socket: TLSSocket) => socket.on('data', (chunk: Buffer) => (bytes += chunk.length)))
    await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
    stops.push(() => backend.close().closeAllConnections())
    const url = `h2://127.0.0.1:${(backend.address() as AddressInfo).port}`
    const sidecar = await sidecarFor({ url, ca_file: caFile })
    expect((await send(sidecar)).status).toBe(502)
    expect(bytes).toBe(0)
  })

  it('serves calls of gRPC, unary and streaming', async () => {
    const backend = new Server()
    backend.addService(ECHO, {
      Unary: (call: ServerUnaryCall<string, string>, done: sendUnaryData<string>) =>
        done(null, `${call.request} for ${String(call.metadata.get('x-auth-subject')[0])}`),
      Collect: () => undefined,
      Count: () => undefined,
      Chat: (call: ServerDuplexStream<string, string>) => {
        call.on('data', (text: string) => call.write(`echo ${text}`))
        call.on('end', () => call.end())
      },
    })
    const pair = { private_key: Buffer.from(server.key), cert_chain: Buffer.from(server.cert) }
    const tls = ServerCredentials.createSsl(Buffer.from(authority.certificate), [pair], true)
    const port = await new Promise<number>((resolve, reject) =>
      backend.bindAsync('127.0.0.1:0', tls, (error, bound) => (error === null ? resolve(bound) : reject(error))),
    )
    stops.push(() => backend.forceShutdown())
    const files = { ca_file: caFile, certificate_file: certificateFile, key_file: keyFile }
    const sidecar = await sidecarFor({ url: `h2://127.0.0.1:${port}`, ...files })
    const caller = openGrpcClient(sidecar.proxyPort)
    const unary = (token: string | undefined) =>
      new Promise<string | number>((resolve) => {
        const { path, requestSerialize, responseDeserialize } = ECHO.Unary
        const metadata = metadataWith(token)
        caller.makeUnaryRequest(path, requestSerialize, responseDeserialize, 'hello', metadata, (error, text) =>
          resolve(error === null ? String(text) : error.code),
        )
      })
    const token = issuer.signAccessToken({ sub: 'alice' })
    expect(await unary(token)).toBe('hello for alice')
    expect(await unary(undefined)).toBe(status.UNAUTHENTICATED)
    const { path, requestSerialize, responseDeserialize } = ECHO.Chat
    const chat = caller.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadataWith(token))
    const heard: string[] = []
    for (const text of ['a', 'b', 'c']) {
      const answer = new Promise<string>((resolve) => chat.once('data', resolve))
      chat.write(text)
      heard.push(await answer)
    }
    chat.end()
    const ended = await new Promise<{ code: number }>((resolve) => chat.on('status', resolve).resume())
    expect([heard, ended.code]).toEqual([['echo a', 'echo b', 'echo c'], status.OK])
    caller.close()
  })
})
