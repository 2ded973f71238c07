import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import {
  serveProvider,
  type ProviderAnswer,
  type ProviderRequest,
  type ProviderServer,
} from '../fakes/provider-server.ts'
import { allOutput, startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { createSigningKey, signJwt } from '../fakes/signer.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

/**
 * The search of canary.test.ts for everything that the helper does: a word is planted in every parameter of every request,
 * and an issuer sends it back wherever an answer has room for it. Another word is in the credentials of this server. The
 * first must be in nothing that is written down; the second, not in an answer to a caller either.
 */
const CANARY = 'Canary5Xq9'
const SECRET = 'Geheim7Zz'
const AUDIENCE = 'https://api.example.com'
const key = createSigningKey('RS256', 'key')
const stranger = createSigningKey('RS256', 'key')
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))

let issuer: ProviderServer
let upstream: FakeUpstream
let sidecar: FakeSidecar
let reply: (request: ProviderRequest) => ProviderAnswer = () => expect.fail()
/** The client whose requests are sent at the moment. */
let current = ''
const answers: string[] = []
/** Tokens that were handed out, or would have been. */
const tokens = new Set<string>()
/** What each client put into its requests to prove who it is. */
const shown = new Set<string>()

const REDIRECT = 'https://app.example.com/callback'
const GRANTS = ['refresh_token', 'authorization_code', 'device_code', 'client_credentials', 'token_exchange']

beforeAll(async () => {
  issuer = await serveProvider((origin) => {
    const metadata = {
      issuer: origin,
      token_endpoint: `${origin}/token`,
      device_authorization_endpoint: `${origin}/device`,
      revocation_endpoint: `${origin}/revoke`,
      jwks_uri: `${origin}/jwks`,
    }
    const answer = (request: ProviderRequest) => {
      noteCredentials(request)
      return reply(request)
    }
    return {
      'GET /.well-known/openid-configuration': () => ({ status: 200, body: metadata }),
      'GET /jwks': () => ({ status: 200, body: { keys: [key.jwk] } }),
      'POST /token': answer,
      'POST /device': answer,
      'POST /revoke': answer,
    }
  })
  upstream = await startUpstream()
  writeFileSync(join(folder, 'secret'), `${SECRET}:%+`)
  writeFileSync(join(folder, 'seal'), randomBytes(32).toString('base64'))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeFileSync(join(folder, 'key'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const common = { grants: GRANTS, redirect_uris: [REDIRECT, `${REDIRECT}?${CANARY}`] }
  const secret = { client_secret: { file: join(folder, 'secret') } }
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.origin, audience: AUDIENCE }],
      upstream: upstream.url,
      helper: {
        timeout: '1s',
        clients: {
          basic: { client_id: 'basic', ...secret, ...common },
          post: { client_id: 'post', client_authentication: 'client_secret_post', ...secret, ...common },
          signed: {
            ...{ client_id: 'signed', client_authentication: 'private_key_jwt', key_file: join(folder, 'key') },
            ...common,
          },
          public: {
            ...{ client_id: 'public', client_authentication: 'none', ...common },
            grants: GRANTS.filter((name) => name !== 'client_credentials' && name !== 'token_exchange'),
          },
        },
      },
    },
  })
  await sidecar.ready()
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

function noteCredentials({ headers, body }: ProviderRequest): void {
  const parameters = new URLSearchParams(body)
  const basic = headers.authorization?.replace(/^Basic /, '')
  for (const text of [basic, parameters.get('client_secret'), parameters.get('client_assertion')]) {
    if (typeof text === 'string') shown.add(text)
  }
}

/** Everything that came, in every place where an issuer could repeat it. */
const echo = ({ headers, body }: ProviderRequest) => {
  const all = `${body} ${decodeURIComponent(body.replaceAll('+', ' '))} ${headers.authorization ?? ''}`
  return { all, members: { error_description: all, error_uri: `https://x/?${all}`, mfa_token: all, hint: { all } } }
}

function createTokens(by = key, more: Record<string, unknown> = {}): Record<string, unknown> {
  const now = Math.floor(Date.now() / 1000)
  const common = { iss: issuer.origin, sub: CANARY, iat: now, exp: now + 600, email: `${CANARY}@example.com` }
  const created = {
    access_token: signJwt(key, { ...common, aud: AUDIENCE, jti: CANARY + String(tokens.size) }),
    refresh_token: `${CANARY}-refresh-${tokens.size}`,
    id_token: signJwt(by, { ...common, aud: current, ...more }, { typ: 'JWT' }),
  }
  for (const token of Object.values(created)) tokens.add(token)
  return { ...created, token_type: 'Bearer', expires_in: 600, scope: CANARY }
}

const REPLIES: Readonly<Record<string, (request: ProviderRequest) => ProviderAnswer>> = {
  'a refusal': (request) => ({ status: 400, body: { error: 'invalid_grant', ...echo(request).members } }),
  'a refusal with a word of its own': (request) => ({
    status: 403,
    body: { ...echo(request).members, error: echo(request).all },
  }),
  'a refusal of the client': (request) => ({
    status: 401,
    body: { error: 'invalid_client', ...echo(request).members },
  }),
  'a refusal with the status of success': (request) => ({
    status: 200,
    body: { error: 'x', ...echo(request).members },
  }),
  'a page': (request) => ({
    status: 200,
    body: `<html>${echo(request).all}`,
    headers: { 'content-type': 'text/html' },
  }),
  'no tokens': (request) => ({ status: 200, body: { ...echo(request).members, token_type: 'Bearer' } }),
  'tokens of a wrong type': () => ({ status: 200, body: { ...createTokens(), token_type: `${CANARY}-type` } }),
  'tokens by a wrong key': () => ({ status: 200, body: createTokens(stranger) }),
  'tokens with a wrong nonce': () => ({ status: 200, body: createTokens(key, { nonce: `${CANARY}-other` }) }),
  'tokens with a wrong azp': () => ({ status: 200, body: createTokens(key, { azp: `${CANARY}-other` }) }),
  'tokens with a wrong at_hash': () => ({ status: 200, body: createTokens(key, { at_hash: `${CANARY}-other` }) }),
  tokens: () => ({ status: 200, body: createTokens(key, { azp: current }) }),
  'a device': () => ({
    status: 200,
    body: {
      ...{ device_code: `${CANARY}-device`, user_code: CANARY, verification_uri: `https://x/?${CANARY}` },
      ...{ verification_uri_complete: `https://x/?${CANARY}`, expires_in: 600, interval: 1 },
    },
  }),
  // The last ones open the circuit breaker.
  'a limit': (request) => ({ status: 429, body: echo(request).members, headers: { 'retry-after': CANARY } }),
  'a fault as a text': (request) => ({ status: 500, body: echo(request).all }),
  'a fault as JSON': (request) => ({ status: 503, body: { error: 'server_error', ...echo(request).members } }),
  'another address': () => ({ status: 302, body: '', headers: { location: `https://x/?${CANARY}` } }),
}

const common = {
  resource: `https://x/${CANARY}`,
  audience: `https://x/${CANARY}`,
  scope: `openid ${CANARY}`,
  x: CANARY,
}
const URN = 'urn:ietf:params:oauth:'
const verifier = `${CANARY}${'v'.repeat(43)}`
const hint = `${Buffer.from('{}').toString('base64url')}.${Buffer.from(JSON.stringify({ iss: CANARY, sub: CANARY })).toString('base64url')}.x`
const REQUESTS: readonly [string, Record<string, string>][] = [
  ['/oauth2/token', { grant_type: 'refresh_token', refresh_token: CANARY, id_token_hint: hint }],
  [
    '/oauth2/token',
    {
      ...{ grant_type: 'authorization_code', code: CANARY, redirect_uri: `${REDIRECT}?${CANARY}` },
      ...{ code_verifier: verifier, nonce: CANARY },
    },
  ],
  ['/oauth2/token', { grant_type: `${URN}grant-type:device_code`, device_code: CANARY }],
  ['/oauth2/token', { grant_type: 'client_credentials' }],
  [
    '/oauth2/token',
    {
      ...{ grant_type: `${URN}grant-type:token-exchange`, subject_token: CANARY, actor_token: CANARY },
      ...{ subject_token_type: `${URN}token-type:access_token`, actor_token_type: `${URN}token-type:access_token` },
    },
  ],
  ['/oauth2/device_authorization', {}],
  ['/oauth2/revoke', { token: CANARY, token_type_hint: CANARY }],
]
/** What is refused before anybody is asked. */
const REFUSED: readonly Record<string, string>[] = [
  { grant_type: 'password', username: CANARY, password: CANARY },
  { grant_type: CANARY },
  { grant_type: 'refresh_token', refresh_token: CANARY, id_token_hint: CANARY },
  { grant_type: 'refresh_token', refresh_token: CANARY, client_assertion: CANARY },
  { grant_type: 'refresh_token', refresh_token: CANARY, client_secret: CANARY },
  { grant_type: 'authorization_code', code: CANARY, redirect_uri: CANARY },
  { grant_type: 'authorization_code', code: CANARY, redirect_uri: REDIRECT, code_verifier: CANARY },
]

async function post(
  path: string,
  parameters: Record<string, string>,
  { to = sidecar, headers = {} }: { to?: FakeSidecar; headers?: Record<string, string> } = {},
): Promise<string> {
  const response = await fetch(to.helper + path, {
    method: 'POST',
    headers: { cookie: CANARY, 'x-api-key': CANARY, ...headers },
    body: new URLSearchParams(parameters),
  })
  const text = await response.text()
  answers.push(text)
  const { code } = (text === '' ? {} : JSON.parse(text)) as { code?: string }
  return code ?? String(response.status)
}

async function startGuarded(shared: string): Promise<FakeSidecar> {
  const guarded = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.origin, audience: AUDIENCE }],
      upstream: upstream.url,
      helper: {
        clients: { basic: { client_id: 'basic', client_secret: { file: join(folder, 'secret') } } },
        callers: {
          backend: { shared_secret: { env: 'SHARED' } },
          worker: { service_accounts: { audience: 'bearward', subjects: ['other'] } },
        },
      },
    },
    env: { SHARED: shared },
  })
  await guarded.ready()
  return guarded
}

it('whatever an issuer sends back, no secret in it is written down', { timeout: 120_000 }, async () => {
  const seen = new Set<string>()
  for (const parameters of REFUSED) seen.add(await post('/oauth2/token', { client_id: 'basic', ...parameters }))
  for (const [name, answer] of Object.entries(REPLIES)) {
    for (const [index, clientId] of ['basic', 'post', 'signed', 'public'].entries()) {
      reply = answer
      current = clientId
      // Each credential is another one, so that no answer is shared.
      const unique = (value: string) => (value === CANARY ? `${CANARY}-${index}-${name.replaceAll(' ', '')}` : value)
      const outcomes = REQUESTS.map(([path, parameters]) => {
        const filled = Object.entries({ ...parameters, ...common }).map(([field, value]) => [field, unique(value)])
        return post(path, { ...(Object.fromEntries(filled) as Record<string, string>), client_id: clientId })
      })
      for (const outcome of await Promise.all(outcomes)) seen.add(outcome)
    }
  }
  // The secret that a caller shows to this server, or shows wrong.
  reply = REPLIES['a refusal'] as typeof reply
  const shared = `${CANARY}-shared-secret`
  const guarded = await startGuarded(shared)
  const now = Math.floor(Date.now() / 1000)
  const account = { iss: issuer.origin, aud: 'bearward', iat: now, exp: now + 600, jti: CANARY }
  for (const text of [shared, `${CANARY}-wrong-secret-shown`, signJwt(key, { ...account, sub: CANARY }), CANARY]) {
    const basic = `Basic ${Buffer.from(`basic:${text}`).toString('base64')}`
    for (const way of [{ authorization: `Bearer ${text}` }, { authorization: basic }, {}, { authorization: text }]) {
      const more = Object.keys(way).length === 0 ? { client_secret: text } : {}
      const parameters = { grant_type: 'refresh_token', refresh_token: `${CANARY}-y`, client_id: 'basic', ...more }
      seen.add(await post('/oauth2/token', parameters, { to: guarded, headers: way }))
      shown.add(basic.slice('Basic '.length))
    }
  }
  await guarded.metrics()
  await issuer.stop()
  seen.add(
    await post('/oauth2/token', { grant_type: 'refresh_token', refresh_token: `${CANARY}-x`, client_id: 'basic' }),
  )
  await sidecar.metrics()

  // It was a wide net.
  expect([...seen].toSorted()).toEqual(
    expect.arrayContaining(['200', 'caller_unauthenticated', 'refused_by_issuer', 'token_validation_failed']),
  )
  expect(seen.size).toBeGreaterThan(8)
  expect(tokens.size).toBeGreaterThan(50)
  expect(shown.size).toBeGreaterThan(20)
  await expect.poll(() => allOutput.join('')).toMatch(/withheld answer (not )?revoked/)
  const output = allOutput.join('\n')
  expect(output.length).toBeGreaterThan(20_000)
  const encoded = Buffer.from(`xx${CANARY}`).toString('base64url').slice(3, 14)
  for (const word of [CANARY, encoded, SECRET, ...tokens, ...shown]) expect(output).not.toContain(word)
  // A caller may see again what it sent; what this server added, never.
  const answered = answers.join('\n')
  for (const word of [SECRET, ...shown]) expect(answered).not.toContain(word)
})
