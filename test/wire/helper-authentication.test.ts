import { generateKeyPairSync, X509Certificate, type KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type ServerResponse, type IncomingMessage } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { CERTIFIED_NAME } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { startScriptedEndpoint, type Scripted } from '../fakes/scripted-endpoint.ts'
import { allOutput, startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import { startSurroundings, stopSurroundings, type Surroundings } from '../fakes/surroundings.ts'
import { requestToken } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let folder: string

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
})
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-'))))
afterEach(() => rmSync(folder, { recursive: true }))
afterAll(stopSurroundings)

/** A sidecar with one client. */
async function start(
  client: Record<string, unknown>,
  issuerSettings: Record<string, unknown> = {},
): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience, ...issuerSettings }],
      upstream: upstream.url,
      helper: { clients: { one: client }, timeout: '2s' },
    },
  })
  onTestFinished(() => sidecar.stop())
  await sidecar.ready()
  return sidecar
}

const refresh = (sidecar: FakeSidecar, refreshToken: string) =>
  requestToken(sidecar.helper, { grant_type: 'refresh_token', refresh_token: refreshToken })

function write(name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}

interface Seen {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly form: URLSearchParams
}

/** A token endpoint that refuses everything and remembers what it got. */
async function startEndpoint(): Promise<{ url: string; seen: Seen[] }> {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString('utf8')))
    request.on('end', () => {
      seen.push({ path: request.url ?? '', headers: request.headers, form: new URLSearchParams(body) })
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`, seen }
}

describe('a secret', () => {
  it('with every odd character gets through client_secret_basic in the encoding of the RFC', async () => {
    const { id, secret } = issuer.clients.odd
    const sidecar = await start({ client_id: id, client_secret: { file: write('secret', secret) } })
    expect((await refresh(sidecar, await issuer.signIn(id))).status).toBe(200)
  })

  it.each([
    ['form', 'b%C3%BC%3A%2B', 'p+%25%7E-._*%C3%A4'],
    ['raw', 'bü:+', 'p %~-._*ä'],
  ])('is sent as it is configured: %s', async (secret_encoding, id, secret) => {
    const endpoint = await startEndpoint()
    const client_secret = { file: write('secret', 'p %~-._*ä') }
    const sidecar = await start({ client_id: 'bü:+', client_secret, secret_encoding, token_endpoint: endpoint.url })
    await refresh(sidecar, 'x')
    const [scheme, credentials] = String(endpoint.seen[0]?.headers.authorization).split(' ')
    expect(scheme).toBe('Basic')
    expect(Buffer.from(String(credentials), 'base64').toString('utf8')).toBe(`${id}:${secret}`)
    expect(endpoint.seen[0]?.form.has('client_id')).toBe(false)
    expect(endpoint.seen[0]?.form.has('client_secret')).toBe(false)
  })

  it('that was rotated here first: the one before is tried once when the new one is refused', async () => {
    const old = issuer.clients.web.secret
    const file = write('secret', old)
    const sidecar = await start({ client_id: 'web', client_secret: { file } })
    const token = await issuer.signIn()
    write('secret', 'the-new-secret-that-the-issuer-does-not-know-yet')
    const before = issuer.requests.token
    const first = await refresh(sidecar, token)
    expect(first.status).toBe(200)
    expect(issuer.requests.token - before).toBe(2)

    issuer.changeSecret('web', 'the-new-secret-that-the-issuer-does-not-know-yet')
    const second = await refresh(sidecar, first.body['refresh_token'] as string)
    expect(second.status).toBe(200)
    expect(issuer.requests.token - before).toBe(3)

    // Accepted once, the new one stands alone.
    issuer.changeSecret('web', old)
    const third = await refresh(sidecar, second.body['refresh_token'] as string)
    expect(third).toMatchObject({ status: 502, body: { code: 'client_refused_by_issuer' } })
    expect(issuer.requests.token - before).toBe(4)
    expect(allOutput.join('')).not.toContain(old)
  })

  it.each<[string, Scripted, number]>([
    ['refuses the client', { status: 401, body: { error: 'invalid_client' } }, 2],
    [
      'wants it to authenticate, and says no more',
      { status: 401, body: '', headers: { 'www-authenticate': 'Basic' } },
      1,
    ],
    ['refuses the client with the status of success', { body: { error: 'invalid_client' } }, 2],
    ['refuses the grant', { status: 400, body: { error: 'invalid_grant' } }, 1],
    ['fails', { status: 500, body: { error: 'invalid_client' } }, 1],
    ['is busy', { status: 429, body: 'x' }, 1],
  ])('that was rotated: an issuer that %s is asked so often', async (_what, answer, times) => {
    const endpoint = await startScriptedEndpoint(answer)
    onTestFinished(() => endpoint.stop())
    const file = write('secret', 'the-secret-of-before')
    const sidecar = await start({ client_id: 'web', client_secret: { file }, token_endpoint: `${endpoint.url}/token` })
    write('secret', 'the-secret-of-now')
    await refresh(sidecar, 'x')
    expect(endpoint.seen).toHaveLength(times)
    // Only an issuer that got past the new one makes the old one forgotten.
    endpoint.answer({ status: 401, body: { error: 'invalid_client' } })
    await refresh(sidecar, 'x')
    expect(endpoint.seen).toHaveLength(times + (answer.status === 400 ? 1 : 2))
  })

  it('whose file is gone for a moment is used on', async () => {
    const file = write('secret', issuer.clients.web.secret)
    const sidecar = await start({ client_id: 'web', client_secret: { file } })
    rmSync(file)
    expect((await refresh(sidecar, await issuer.signIn())).status).toBe(200)
  })
})

describe('private_key_jwt', () => {
  const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string
  const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ec = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ed = () => generateKeyPairSync('ed25519')

  it.each([
    ['an RSA key', rsa, {}, 'RS256'],
    ['an RSA key for PS256', rsa, { key_algorithm: 'PS256' }, 'PS256'],
    ['a key on P-256', ec, {}, 'ES256'],
  ] as const)('with %s', async (_what, generate, settings, alg) => {
    const { privateKey, publicKey } = generate()
    issuer.trustClientKeys({ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg, use: 'sig' })
    const key_file = write('key.pem', pem(privateKey))
    const client = {
      client_id: 'signing',
      client_authentication: 'private_key_jwt',
      key_file,
      key_id: 'k1',
      ...settings,
    }
    const sidecar = await start(client)
    expect((await refresh(sidecar, await issuer.signIn('signing'))).status).toBe(200)
  })

  it('with a key that is a JWK, by its own algorithm and name; the key before is tried after a rotation', async () => {
    const [one, two] = [rsa(), rsa()]
    const write1 = (key: KeyObject, kid: string) =>
      write('key.json', JSON.stringify({ ...key.export({ format: 'jwk' }), alg: 'PS256', kid }))
    issuer.trustClientKeys({ ...one.publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'PS256' })
    const key_file = write1(one.privateKey, 'one')
    const sidecar = await start({ client_id: 'signing', client_authentication: 'private_key_jwt', key_file })
    write1(two.privateKey, 'two')
    const first = await refresh(sidecar, await issuer.signIn('signing'))
    expect(first.status).toBe(200)
    issuer.trustClientKeys({ ...two.publicKey.export({ format: 'jwk' }), kid: 'two', use: 'sig', alg: 'PS256' })
    expect((await refresh(sidecar, first.body['refresh_token'] as string)).status).toBe(200)
    // Written in part only: the key of before is used on.
    writeFileSync(key_file, '{"kty":"RSA","n":"')
    expect((await refresh(sidecar, await issuer.signIn('signing'))).status).toBe(200)
  })

  it.each([
    ['the issuer by default', {}, {}, () => issuer.issuer],
    ['the token endpoint for Okta', {}, { preset: 'okta' }, (url: string) => url],
    ['the token endpoint when told so', { assertion_audience: 'token_endpoint' }, {}, (url: string) => url],
    ['whatever is configured', { assertion_audience: 'https://as.example/x' }, {}, () => 'https://as.example/x'],
  ] as const)('is for %s, good for a minute and never the same', async (_what, settings, issuerSettings, expected) => {
    const endpoint = await startEndpoint()
    const key_file = write('key.pem', pem(ed().privateKey))
    const client = { client_id: 'signing', client_authentication: 'private_key_jwt', key_file, ...settings }
    // Okta's issuers have a path that is checked.
    const sidecar = await start(
      { ...client, token_endpoint: endpoint.url },
      { jwks_file: write('k.json', KEYS), ...okta(issuerSettings) },
    )
    await refresh(sidecar, 'x')
    await refresh(sidecar, 'y')
    const assertions = endpoint.seen.map(({ form }) => String(form.get('client_assertion')))
    const [first, second] = assertions.map((assertion) => decodeJwt(assertion))
    const aud = 'preset' in issuerSettings ? endpoint.url : expected(endpoint.url)
    expect(first).toMatchObject({ iss: 'signing', sub: 'signing', aud })
    expect(Number(first?.exp) - Number(first?.iat)).toBe(60)
    expect(first?.jti).not.toBe(second?.jti)
    expect(decodeProtectedHeader(String(assertions[0]))).toEqual({ alg: 'EdDSA' })
    expect(endpoint.seen[0]?.form.get('client_id')).toBe('signing')
    expect(endpoint.seen[0]?.headers.authorization).toBeUndefined()
    expect(sidecar.logText()).not.toContain(assertions[0])
  })

  const okta = (settings: object) =>
    'preset' in settings ? { ...settings, issuer: 'https://d.example/oauth2/default' } : settings
  const { publicKey } = rsa()
  const KEYS = JSON.stringify({
    keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'a', alg: 'RS256', use: 'sig' }],
  })

  it('with a file that holds no key is refused at start', async () => {
    const key_file = write('key.pem', 'nothing')
    const client = { client_id: 'signing', client_authentication: 'private_key_jwt', key_file }
    await expect(start(client)).rejects.toThrow(/key\.pem: the key file holds no private key in PEM or JWK form\./)
  })
})

describe('a certificate', () => {
  const authority = createAuthority('authority of clients')
  const server = createAuthority('authority of servers')

  /** Ends TLS in front of the authorization server, as a proxy does, and tells it who is there. */
  async function startTlsFront(): Promise<{ url: string; subjects: string[] }> {
    const subjects: string[] = []
    const handle = async (request: IncomingMessage, response: ServerResponse) => {
      const raw = (request.socket as TLSSocket).getPeerCertificate().raw
      const certificate = new X509Certificate(raw)
      subjects.push(String(certificate.subjectAltName))
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      const answer = await fetch(issuer.issuer + String(request.url), {
        method: 'POST',
        body: Buffer.concat(chunks),
        headers: {
          'content-type': String(request.headers['content-type']),
          'x-client-verify': 'SUCCESS',
          'x-client-certificate': raw.toString('base64'),
          'x-client-name': String(certificate.subjectAltName).replace('DNS:', ''),
        },
      })
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text())
    }
    const front = createTlsServer(
      { ...server.issue('127.0.0.1'), ca: authority.certificate, requestCert: true, rejectUnauthorized: true },
      (request, response) => void handle(request, response),
    )
    await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      front.close()
      front.closeAllConnections()
    })
    return { url: `https://127.0.0.1:${(front.address() as AddressInfo).port}/token`, subjects }
  }

  const settings = (identity: { cert: string; key: string }) => ({
    client_id: 'certified',
    client_authentication: 'tls_client_auth',
    certificate_file: write('client.pem', identity.cert),
    key_file: write('client-key.pem', identity.key),
  })

  it('is shown to the issuer, and a new one on new connections when it is rotated', async () => {
    const front = await startTlsFront()
    const ca_file = write('ca.pem', server.certificate)
    const client = { ...settings(authority.issue(CERTIFIED_NAME)), token_endpoint: front.url }
    const sidecar = await start(client, { ca_file, jwks_uri: `${issuer.issuer}/jwks` })
    const first = await refresh(sidecar, await issuer.signIn('certified'))
    expect(first.status).toBe(200)
    settings(authority.issue('other.bearward.test'))
    const second = await refresh(sidecar, first.body['refresh_token'] as string)
    expect(second).toMatchObject({ status: 502, body: { code: 'client_refused_by_issuer' } })
    expect(front.subjects).toEqual([`DNS:${CERTIFIED_NAME}`, 'DNS:other.bearward.test'])
  })

  it('of a stranger gets no answer, which may mean anything; the right one in its place does at once', async () => {
    const front = await startTlsFront()
    const ca_file = write('ca.pem', server.certificate)
    const stranger = createAuthority('nobody').issue(CERTIFIED_NAME)
    const sidecar = await start(
      { ...settings(stranger), token_endpoint: front.url },
      { ca_file, jwks_uri: `${issuer.issuer}/jwks` },
    )
    const token = await issuer.signIn('certified')
    expect(await refresh(sidecar, token)).toMatchObject({ status: 502, body: { code: 'outcome_unknown' } })
    settings(authority.issue(CERTIFIED_NAME))
    expect((await refresh(sidecar, token)).status).toBe(200)
    expect(sidecar.lastExchange()).toMatchObject({ client: 'one', code: 'ok' })
  })
})
