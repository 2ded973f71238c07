import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createPlain, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { createServer as createSecure, request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { openRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'

const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
/** An authority, and certificates that it signed, in files. */
function createCertificates(name: string) {
  const authority = createAuthority(name)
  let count = 0
  const write = (file: string, text: string) => {
    writeFileSync(join(folder, file), text)
    return join(folder, file)
  }
  return {
    ca: write(`${name}.pem`, authority.certificate),
    issue(host: string) {
      count += 1
      const { cert, key } = authority.issue(host, '127.0.0.1')
      return { certificate: write(`${name}-${count}.pem`, cert), key: write(`${name}-${count}-key.pem`, key) }
    },
  }
}

let issuer: AuthorizationServer
const certificates = createCertificates('ours')
const others = createCertificates('theirs')
const stops: (() => void)[] = []

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

const echo = (request: IncomingMessage, response: ServerResponse) =>
  void response.end(JSON.stringify({ headers: request.headers, peer: peerName(request.socket as TLSSocket) }))
const peerName = (socket: TLSSocket) =>
  'getPeerCertificate' in socket ? socket.getPeerCertificate().subject?.CN : undefined

async function listen(server: ReturnType<typeof createPlain>, where: string | number = 0): Promise<number> {
  await new Promise<void>((resolve) =>
    typeof where === 'string' ? server.listen(where, resolve) : server.listen(where, '127.0.0.1', resolve),
  )
  stops.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return typeof where === 'string' ? 0 : (server.address() as AddressInfo).port
}

async function start(config: Record<string, unknown>): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], ...config },
  })
  await sidecar.ready()
  return sidecar
}

const authorization = () => `Bearer ${issuer.signAccessToken()}`

describe('an upstream', () => {
  const call = (sidecar: FakeSidecar) => fetch(`${sidecar.proxy}/a`, { headers: { authorization: authorization() } })

  it('on a Unix socket is reached', async () => {
    const path = join(folder, 'api.sock')
    await listen(createPlain(echo), path)
    const sidecar = await start({ upstream: `unix:${path}` })
    expect((await call(sidecar)).status).toBe(200)
  })

  it('with a certificate of a private authority is reached, and sees ours', async () => {
    const server = certificates.issue('backend.internal')
    const client = certificates.issue('bearward')
    const options = {
      cert: readFileSync(server.certificate),
      key: readFileSync(server.key),
      ca: readFileSync(certificates.ca),
    }
    const port = await listen(createSecure({ ...options, requestCert: true, rejectUnauthorized: true }, echo))
    const sidecar = await start({
      upstream: {
        url: `https://127.0.0.1:${port}`,
        ca_file: certificates.ca,
        server_name: 'backend.internal',
        certificate_file: client.certificate,
        key_file: client.key,
      },
    })
    for (let i = 0; i < 3; i += 1) {
      const response = await call(sidecar)
      expect(response.status).toBe(200)
      expect(await response.json()).toMatchObject({ peer: 'bearward' })
    }
  })

  it.each<[string, (server: { ca: string }) => Record<string, unknown>]>([
    ['of an authority that is not trusted', () => ({})],
    ['of another authority than the one named', () => ({ ca_file: others.ca })],
    ['for another name', () => ({ ca_file: certificates.ca, server_name: 'somebody.else' })],
  ])('with a certificate %s is not: 502', async (_what, settings) => {
    const server = certificates.issue('backend.internal')
    const port = await listen(
      createSecure({ cert: readFileSync(server.certificate), key: readFileSync(server.key) }, echo),
    )
    const sidecar = await start({ upstream: { url: `https://127.0.0.1:${port}`, ...settings(server as never) } })
    const response = await call(sidecar)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ code: 'upstream_unreachable' })
    expect(sidecar.lastRequest()).toMatchObject({
      detail: { cause: expect.stringMatching(/CERT|SELF_SIGNED|UNABLE|ERR_TLS/) as string },
    })
  })

  it('whose authorities are in a file that is gone: 502 that names why', async () => {
    const sidecar = await start({ upstream: { url: 'https://127.0.0.1:1', ca_file: join(folder, 'gone.pem') } })
    expect((await call(sidecar)).status).toBe(502)
    expect(sidecar.lastRequest()).toMatchObject({ code: 'upstream_unreachable', detail: { cause: 'ENOENT' } })
  })
})

interface Answer {
  readonly status: number
  readonly body: string
}

function get(sidecar: FakeSidecar, options: Record<string, unknown> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: authorization() }
    const all = {
      host: '127.0.0.1',
      port: sidecar.proxyPort,
      path: '/a',
      headers,
      ca: readFileSync(certificates.ca),
      agent: false,
      ...options,
    }
    httpsRequest(all, (response) => {
      let body = ''
      response.on('data', (chunk) => (body += String(chunk)))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
      .on('error', reject)
      .end()
  })
}

describe('TLS on the proxy listener', () => {
  async function startSecure(tls: Record<string, unknown>): Promise<FakeSidecar> {
    const port = await listen(createPlain(echo))
    return start({ upstream: `http://127.0.0.1:${port}`, listen: { tls } })
  }

  it('serves HTTP/1.1 and HTTP/2 as ALPN says; the backend learns of it', async () => {
    const { certificate, key } = certificates.issue('api.test')
    const sidecar = await startSecure({ certificate_file: certificate, key_file: key })
    const { status, body } = await get(sidecar)
    expect(status).toBe(200)
    expect(body).toContain('"x-forwarded-proto":"https"')
    expect((await get(sidecar, { headers: {} })).status).toBe(401)

    const session = connectHttp2(`https://127.0.0.1:${sidecar.proxyPort}`, { ca: readFileSync(certificates.ca) })
    const stream = session.request({ ':path': '/a', authorization: authorization() })
    const head = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
    expect(head[':status']).toBe(200)
    expect(session.alpnProtocol).toBe('h2')
    session.destroy()
  })

  it('ends in time, though a caller does not finish its handshake', async () => {
    const { certificate, key } = certificates.issue('api.test')
    const port = await listen(createPlain(echo))
    const tls = { certificate_file: certificate, key_file: key }
    const sidecar = await start({ upstream: `http://127.0.0.1:${port}`, listen: { tls }, drain: { timeout: '1s' } })
    const { socket } = await openRaw(sidecar.proxyPort)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await sidecar.stop()
    await closed
    // It did not wait until the handshake, which may take ten seconds, was given up.
    expect(JSON.stringify(sidecar.logLines())).not.toContain('HANDSHAKE_TIMEOUT')
  })

  it('does not speak in the clear, nor old versions', async () => {
    const { certificate, key } = certificates.issue('api.test')
    const sidecar = await startSecure({ certificate_file: certificate, key_file: key })
    await expect(fetch(`${sidecar.proxy}/a`)).rejects.toThrow()
    await expect(
      get(sidecar, { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' }),
    ).rejects.toThrow()
    expect(await sidecar.metrics()).toMatch(/bearward_tls_handshakes_failed_total [1-9]/)
  })

  it('asks callers for a certificate when authorities are named', async () => {
    const { certificate, key } = certificates.issue('api.test')
    const sidecar = await startSecure({ certificate_file: certificate, key_file: key, client_ca_file: certificates.ca })
    const client = certificates.issue('caller')
    const stranger = others.issue('stranger')
    const show = ({ certificate: cert, key: clientKey }: typeof client) => ({
      cert: readFileSync(cert),
      key: readFileSync(clientKey),
    })
    expect((await get(sidecar, show(client))).status).toBe(200)
    await expect(get(sidecar)).rejects.toThrow()
    await expect(get(sidecar, show(stranger))).rejects.toThrow()
  })

  it('takes new files for new connections, keeps the old ones open, and ignores bad files', async () => {
    const [first, second] = [certificates.issue('api.test'), certificates.issue('renewed.test')]
    const files = { certificate_file: join(folder, 'tls.pem'), key_file: join(folder, 'tls-key.pem') }
    copyFileSync(first.certificate, files.certificate_file)
    copyFileSync(first.key, files.key_file)
    const sidecar = await startSecure(files)
    const open = () =>
      new Promise<TLSSocket>((resolve) => {
        const socket = connectTls(
          { host: '127.0.0.1', port: sidecar.proxyPort, ca: readFileSync(certificates.ca) },
          () => resolve(socket),
        )
      })
    const old = await open()
    writeFileSync(files.certificate_file, 'not a certificate')
    await expect
      .poll(() => sidecar.logText(), { timeout: 15_000 })
      .toContain('the new certificate files cannot be used')
    expect(peerName(await open())).toBe('api.test')
    copyFileSync(second.certificate, files.certificate_file)
    copyFileSync(second.key, files.key_file)
    await expect.poll(() => sidecar.logText(), { timeout: 15_000 }).toContain('certificate replaced')
    expect(peerName(await open())).toBe('renewed.test')
    let answer = ''
    old.on('data', (chunk) => (answer += String(chunk)))
    old.write(`GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: ${authorization()}\r\n\r\n`)
    await expect.poll(() => answer).toMatch(/^HTTP\/1\.1 200 /)
    old.destroy()
  })

  it('with a file that is not there does not start', async () => {
    const config = {
      upstream: 'http://127.0.0.1:1',
      listen: { tls: { certificate_file: '/gone.pem', key_file: '/gone.pem' } },
    }
    await expect(start(config)).rejects.toThrow(/listen\.tls: the file \/gone\.pem cannot be read \(ENOENT\)/)
  })
})
