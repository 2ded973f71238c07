import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { CODES, GRANT_CODES } from '../../src/errors.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw, sendRaw } from '../fakes/raw.ts'
import { startScriptedEndpoint, type ScriptedEndpoint } from '../fakes/scripted-endpoint.ts'
import { allOutput, startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startRawUpstream, startUpstream, type FakeUpstream, type RawUpstream } from '../fakes/upstream.ts'

/**
 * A word is planted wherever secrets travel, everything that can happen is made to happen, at trace level, and the word
 * must be in nothing that was logged, counted, or answered by the sidecar itself. SECURITY.md says which claims of a token
 * whose signature was not checked may be logged (`iss`, `aud`, `kid`, `alg`, `typ`); it is not planted there.
 */
const CANARY = 'Canary5Xq9'
const encoded = Buffer.from(`xx${CANARY}`).toString('base64url').slice(3, 14)
let issuer: AuthorizationServer
let upstream: FakeUpstream
let broken: RawUpstream
let sidecar: FakeSidecar
let toBroken: FakeSidecar
let scripted: ScriptedEndpoint
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PEM = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
const answers: string[] = []

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
  broken = await startRawUpstream((socket, everything) => {
    const received = everything.slice(everything.lastIndexOf('POST /'))
    if (received.includes('/reset')) socket.destroy()
    else if (received.includes('/cut')) socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n${CANARY}`)
    else if (received.includes('/garbage')) socket.write(`${CANARY}\r\nSet-Cookie: ${CANARY}\r\n\r\n`)
  })
  process.env['CANARY_SECRET'] = `${CANARY}-secret`
  process.env['WEB_SECRET'] = issuer.clients.web.secret
  const issuers = [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }]
  const rules = [
    { name: 'public', prefix: ['/public'], access: 'public' },
    { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
    { name: 'claims', prefix: ['/claims'], claims: [{ claim: 'level', any_of: [3] }] },
  ]
  scripted = await startScriptedEndpoint({ body: {} })
  writeFileSync(join(folder, 'key.pem'), PEM)
  const redirect_uris = ['https://app.bearward.test/callback']
  const endpoints = {
    token_endpoint: `${scripted.url}/token?key=${CANARY}`,
    device_authorization_endpoint: `${scripted.url}/device?key=${CANARY}`,
    revocation_endpoint: `${scripted.url}/revoke?key=${CANARY}`,
  }
  const grants = ['refresh_token', 'authorization_code', 'device_code', 'client_credentials', 'token_exchange']
  const helper = {
    timeout: '1s',
    clients: {
      signing: {
        client_id: 'signing',
        client_authentication: 'private_key_jwt',
        key_file: join(folder, 'key.pem'),
        grants,
        redirect_uris,
        ...endpoints,
      },
      web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } },
      wrong: { client_id: 'service', client_secret: { env: 'CANARY_SECRET' } },
    },
  }
  const identity = { max_header_bytes: '64B', headers: [{ header: 'x-auth-long', claim: 'long' }] }
  sidecar = await startSidecar({ config: { issuers, rules, helper, identity, upstream: upstream.url } })
  toBroken = await startSidecar({ config: { issuers, upstream: { url: broken.url, response_timeout: '1s' } } })
  await Promise.all([sidecar.ready(), toBroken.ready()])
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
  await broken.stop()
  await scripted.stop()
  rmSync(folder, { recursive: true })
})

const secretFields = ['Cookie: session=' + CANARY, `X-Api-Key: ${CANARY}`, `Proxy-Authorization: Basic ${CANARY}`]

function head(target: string, token: string | undefined, ...fields: string[]): string {
  const credentials = token === undefined ? [] : [`Authorization: Bearer ${token}`]
  const query = target.includes('?') ? `&q=${CANARY}` : `?code=${CANARY}&access_token=${CANARY}`
  return [`POST ${target}${query} HTTP/1.1`, 'Host: api.test', ...credentials, ...secretFields, ...fields, '', ''].join(
    '\r\n',
  )
}

/** Sends a request with the word in its body; keeps what the sidecar itself answered. */
async function send(to: FakeSidecar, target: string, token?: string, ...fields: string[]): Promise<string> {
  const body = `password=${CANARY}`
  const bytes = head(target, token, `Content-Length: ${body.length}`, ...fields) + body
  const { text } = await sendRaw(to.proxyPort, bytes)
  if (text.includes('application/problem+json')) answers.push(text)
  return /"code":"([a-z_]+)"/.exec(text)?.[1] ?? text.slice(9, 12)
}

it('whatever happens to a request, no secret in it is written down', async () => {
  const sign = (claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}) =>
    issuer.signAccessToken(
      { sub: CANARY, email: `${CANARY}@example.com`, jti: CANARY, ...claims },
      { x5c: [CANARY], jku: CANARY, ...header },
    )
  const now = Math.floor(Date.now() / 1000)
  const seen = new Set<string>()
  const go = async (...parts: Parameters<typeof send>) => void seen.add(await send(...parts))

  for (let i = 0; i < 2; i += 1) await go(sidecar, '/a', sign())
  await go(sidecar, '/public/a')
  await go(sidecar, '/a')
  await go(sidecar, '/a', CANARY)
  await go(sidecar, '/a', `${CANARY}.${CANARY}.${CANARY}`)
  await go(sidecar, '/a', `${sign()} ${CANARY}`)
  await go(sidecar, '/a', sign(), `Authorization: Bearer ${CANARY}`)
  await go(sidecar, '/a', `${sign().slice(0, -20)}${CANARY}AAAAAAAAAA`)
  await go(sidecar, '/a', `${CANARY}${'x'.repeat(17_000)}`)
  const refused: [Record<string, unknown>, Record<string, unknown>?][] = [
    [{ exp: now - 60 }],
    [{ exp: CANARY }],
    [{ exp: undefined }],
    [{ nbf: now + 60 }],
    [{ iat: now + 60 }],
    [{ aud: 'https://other' }],
    [{ iss: 'https://other' }],
    [{ sub: [CANARY] }],
    [{ nonce: CANARY }],
    [{}, { kid: 'other' }],
    [{}, { alg: 'none' }],
    [{}, { typ: 'x' }],
    [{}, { crit: [CANARY] }],
    [{ long: CANARY.repeat(20) }],
  ]
  for (const [claims, header] of refused) await go(sidecar, '/a', sign(claims, header))
  await go(sidecar, '/admin', sign({ scope: CANARY }))
  await go(sidecar, '/claims', sign({ level: CANARY }))
  await go(sidecar, '/a/../b', sign())
  await go(sidecar, '/a', sign(), 'Host: other')
  await go(sidecar, '/a', sign(), `Expect: ${CANARY}`)
  await go(sidecar, '/a', sign(), 'Connection: upgrade', `Upgrade: ${CANARY}`)
  await go(sidecar, '/a', sign(), `Bad Name: ${CANARY}`)
  await go(sidecar, '/a', sign(), `X: ${CANARY.repeat(4000)}`)
  for (const path of ['/reset', '/cut', '/garbage', '/silent']) await go(toBroken, path, sign())
  const { socket } = await openRaw(toBroken.proxyPort)
  socket.write(head('/leave', sign()))
  await expect.poll(() => broken.received()).toContain('/leave')
  socket.destroy()
  await issuer.stop()
  const cold = await startSidecar({
    config: { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream: upstream.url },
  })
  await go(cold, '/a', sign())
  await issuer.restart()

  // It was a wide net: most of the codes were among them.
  expect([...seen].filter((code) => code in CODES).length).toBeGreaterThan(22)
  for (const one of [sidecar, toBroken, cold]) await one.metrics()
  await expect.poll(() => allOutput.join('')).toContain('caller_gone')
  expectSilence()
})

it('whatever happens to a grant, no secret in it is written down', async () => {
  const post = async (parameters: Record<string, string>, init: RequestInit = {}) => {
    const response = await fetch(`${sidecar.helper}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams(parameters),
      ...init,
    })
    const text = await response.text()
    if (response.status !== 200) answers.push(text)
    return response.status
  }
  const refresh = (token: string, more: Record<string, string> = {}) =>
    post({ grant_type: 'refresh_token', client_id: 'web', refresh_token: token, ...more })
  const statuses = new Set<number>()
  statuses.add(await refresh(await issuer.signIn()))
  statuses.add(await refresh(CANARY))
  statuses.add(await refresh(CANARY, { client_id: 'service' }))
  statuses.add(await refresh(CANARY, { client_secret: CANARY }))
  statuses.add(await post({ grant_type: 'password', username: CANARY, password: CANARY, client_id: 'web' }))
  statuses.add(await post({ grant_type: CANARY, client_id: 'web' }))
  statuses.add(
    await post(
      {},
      {
        body: `{"grant_type":"refresh_token","refresh_token":"${CANARY}"`,
        headers: { 'content-type': 'application/json' },
      },
    ),
  )
  for (const mode of ['500', 'reset', 'html', 'hang'] as const) {
    issuer.fail('token', mode)
    statuses.add(await refresh(CANARY))
  }
  issuer.fail('token', undefined)
  issuer.tamper((body) => ({ ...body, id_token: `${body['id_token'] as string}${CANARY}` }))
  statuses.add(await refresh(await issuer.signIn()))
  issuer.tamper((body) => ({
    error: 'invalid_grant',
    mfa_token: CANARY,
    ...(body['error'] === undefined ? {} : { error_description: 'no' }),
  }))
  await refresh(CANARY)
  answers.pop()
  issuer.tamper(undefined)
  expect([...statuses].toSorted()).toEqual([200, 400, 502, 504])
  await sidecar.metrics()
  expectSilence()
})

it('whatever happens to codes, devices and tokens of others, no secret in it is written down', async () => {
  const seen = new Set<string>()
  const post = async (path: string, parameters: Record<string, string>, isPassedThrough = false) => {
    const response = await fetch(sidecar.helper + path, {
      method: 'POST',
      body: new URLSearchParams({ client_id: 'signing', ...parameters }),
      headers: { cookie: `a=${CANARY}`, 'x-secret': CANARY },
    })
    const text = await response.text()
    if (response.status !== 200 && !isPassedThrough) answers.push(text)
    seen.add((JSON.parse(text === '' ? '{}' : text) as { code?: string }).code ?? 'ok')
  }
  const urn = (name: string) => `urn:ietf:params:oauth:grant-type:${name}`
  const redirect_uri = 'https://app.bearward.test/callback'
  const code = { grant_type: 'authorization_code', code: CANARY, code_verifier: `${CANARY}${'x'.repeat(40)}` }
  const grants: Record<string, string>[] = [
    { grant_type: 'refresh_token', refresh_token: CANARY },
    { ...code, redirect_uri, nonce: CANARY },
    { grant_type: 'client_credentials', scope: CANARY },
    { grant_type: urn('token-exchange'), subject_token: CANARY, subject_token_type: CANARY },
    { grant_type: urn('device_code') },
  ]
  const everything = async (isPassedThrough = false) => {
    // A device code is polled once in a while only: each time another one.
    const device_code = CANARY + String(seen.size) + String(Math.random())
    for (const grant of grants) await post('/oauth2/token', { device_code, ...grant }, isPassedThrough)
    await post('/oauth2/device_authorization', { scope: CANARY }, isPassedThrough)
    await post('/oauth2/revoke', { token: CANARY, token_type_hint: CANARY }, isPassedThrough)
  }
  // A provider whose every answer holds the word.
  const tokens = { access_token: CANARY, refresh_token: CANARY, token_type: 'Bearer', expires_in: 1 }
  scripted.answer({
    body: { ...tokens, device_code: CANARY, user_code: CANARY, verification_uri: 'https://a.example' },
  })
  await everything()
  scripted.answer({ body: { ...tokens, token_type: CANARY, id_token: `${CANARY}.${CANARY}.${CANARY}` } })
  await everything()
  for (const status of [200, 302, 403, 429, 500]) {
    scripted.answer({ status, body: `<html>${CANARY}`, headers: { location: `/${CANARY}`, 'x-secret': CANARY } })
    await everything()
  }
  scripted.answer({ status: 401, body: { error: 'invalid_client', error_description: CANARY } })
  await everything()
  scripted.answer({ status: 400, body: { error: 'invalid_grant', error_description: CANARY, mfa_token: CANARY } })
  await everything(true)

  // A caller that makes mistakes.
  await post('/oauth2/token', { ...code, redirect_uri: `https://${CANARY}.example/` })
  await post('/oauth2/token', { ...code, redirect_uri, code_verifier: CANARY })
  await post('/oauth2/token', { grant_type: urn(CANARY) })
  await post('/oauth2/token', { grant_type: urn('device_code'), device_code: CANARY, wait: CANARY })
  await post('/oauth2/token', { client_id: CANARY })
  await post('/oauth2/token', { client_secret: CANARY })
  await post(`/oauth2/token?code=${CANARY}`, {})
  await post(`/${CANARY}`, {})
  await fetch(`${sidecar.helper}/.well-known/oauth-authorization-server/${CANARY}`)
  await scripted.stop()
  await everything()

  expect([...seen].filter((one) => one in GRANT_CODES).length).toBeGreaterThan(10)
  await sidecar.metrics()
  expectSilence()
  for (const line of PEM.split('\n').slice(1, -2)) expect(allOutput.join('')).not.toContain(line)
  // What the caller sent along goes nowhere.
  for (const { headers } of scripted.seen) expect(JSON.stringify(headers)).not.toContain(CANARY)
})

function expectSilence(): void {
  const output = allOutput.join('\n')
  expect(output.length).toBeGreaterThan(5000)
  for (const word of [CANARY, encoded, encodeURIComponent(CANARY), issuer.clients.web.secret]) {
    expect(output).not.toContain(word)
    expect(answers.join('\n')).not.toContain(word)
  }
}
