import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { createSigningKey, signJwt, type SigningKey } from '../fakes/signer.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

/**
 * Tokens shaped like those of each provider, in front of its example configuration with nothing changed but where the keys
 * are and where the upstream is. Shapes: vendor documentation; every provider signs ID tokens with another key.
 */
let upstream: FakeUpstream
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const accessKey = createSigningKey('RS256', 'access')
const idKey = createSigningKey('RS256', 'id')
const tenantKey: SigningKey = createSigningKey('RS256', 'tenant')
const TENANT = '8f2a5b1c-0000-4000-8000-1234567890ab'
const OTHER_TENANT = '7f2a5b1c-0000-4000-8000-1234567890ab'

beforeAll(async () => {
  upstream = await startUpstream()
  // As Keycloak and Entra publish them: an encryption key beside the others, and keys without `alg`.
  const withoutAlg = ({ jwk: { alg: _alg, ...jwk } }: SigningKey, more = {}) => ({ ...jwk, ...more })
  const keys = [
    withoutAlg(accessKey),
    withoutAlg(idKey),
    withoutAlg(tenantKey, { issuer: `https://login.microsoftonline.com/${OTHER_TENANT}/v2.0` }),
    withoutAlg(createSigningKey('RS256', 'encryption'), { use: 'enc', alg: 'RSA-OAEP' }),
  ]
  writeFileSync(join(folder, 'keys.json'), JSON.stringify({ keys }))
})

afterAll(async () => {
  await stopSidecars()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

const sidecars = new Map<string, Promise<FakeSidecar>>()

function start(example: string): Promise<FakeSidecar> {
  const started = sidecars.get(example)
  if (started !== undefined) return started
  const promise = startFromExample(example)
  sidecars.set(example, promise)
  return promise
}

async function startFromExample(example: string): Promise<FakeSidecar> {
  const text = readFileSync(join(import.meta.dirname, `../../config/examples/${example}.yaml`), 'utf8')
  const config = parse(text) as { issuers: Record<string, unknown>[] }
  const issuers = config.issuers.map(({ jwks_uri: _uri, ...issuer }) => ({
    ...issuer,
    jwks_file: join(folder, 'keys.json'),
  }))
  const sidecar = await startSidecar({ config: { ...config, issuers, upstream: upstream.url } })
  await sidecar.ready()
  return sidecar
}

interface Shape {
  readonly example: string
  readonly header?: Record<string, unknown>
  readonly claims: Record<string, unknown>
  readonly key?: SigningKey
  readonly headerName?: string
}

const now = Math.floor(Date.now() / 1000)

async function send({ example, header = {}, claims, key = accessKey, headerName = 'authorization' }: Shape) {
  const sidecar = await start(example)
  const times = { iat: now - 10, exp: now + 600 }
  const token = signJwt(key, { ...times, ...claims }, header)
  const value = headerName === 'authorization' ? `Bearer ${token}` : token
  const response = await fetch(`${sidecar.proxy}/a`, { headers: { [headerName]: value } })
  const body = (await response.json()) as { code?: string; headers?: Record<string, string> }
  return { outcome: response.status === 200 ? 'ok' : (body.code as string), headers: body.headers ?? {} }
}

const NO_TYP = { typ: undefined }
const JWT = { typ: 'JWT' }
const ENTRA_V2 = {
  iss: `https://login.microsoftonline.com/${TENANT}/v2.0`,
  aud: '11111111-2222-4333-8444-555555555555',
}
const COGNITO = { iss: 'https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI', sub: 'u' }
const KEYCLOAK = { iss: 'https://sso.example.com/realms/main', sub: 'u', azp: 'web' }
const OKTA = {
  iss: 'https://example.okta.com/oauth2/default',
  ver: 1,
  aud: 'api://default',
  sub: 'a@example.com',
  uid: '00u1',
}
const GOOGLE = {
  aud: '1234567890-abc.apps.googleusercontent.com',
  azp: 'x',
  sub: '1',
  hd: 'example.com',
  at_hash: 'x',
  nonce: 'n',
}

describe('an access token as this provider makes it is accepted', () => {
  it.each<[Shape, Record<string, string>]>([
    [
      {
        example: 'auth0',
        header: JWT,
        claims: {
          iss: 'https://tenant.eu.auth0.com/',
          aud: ['https://api.example.com', 'https://tenant.eu.auth0.com/userinfo'],
          sub: 'auth0|1',
          azp: 'c1',
          scope: 'openid',
          permissions: ['read:orders'],
          'https://example.com/roles': ['boss'],
        },
      },
      {
        'x-auth-client-id': 'c1',
        'x-auth-permissions': 'read:orders',
        'x-auth-roles': 'boss',
        'x-auth-scope': 'openid',
      },
    ],
    [
      {
        example: 'auth0',
        header: { typ: 'at+jwt' },
        claims: {
          iss: 'https://tenant.eu.auth0.com/',
          aud: 'https://api.example.com',
          sub: 'c2@clients',
          client_id: 'c2',
        },
      },
      { 'x-auth-client-id': 'c2' },
    ],
    [
      {
        example: 'workos-connect',
        header: NO_TYP,
        claims: {
          iss: 'https://subdomain.authkit.app',
          aud: 'https://api.example.com',
          sub: 'user_1',
          client_id: 'client_1',
          org_id: 'org_1',
          sid: 'app_consent_1',
          jti: '1',
        },
      },
      { 'x-auth-client-id': 'client_1' },
    ],
    [
      {
        example: 'workos-user-management',
        header: NO_TYP,
        claims: {
          iss: 'https://api.workos.com/',
          client_id: 'client_123',
          sub: 'user_1',
          sid: 's',
          role: 'admin',
          permissions: ['a'],
        },
      },
      { 'x-auth-permissions': 'a' },
    ],
    [
      { example: 'okta', header: NO_TYP, claims: { ...OKTA, cid: 'c', scp: ['a', 'b'] } },
      { 'x-auth-scope': 'a b', 'x-auth-client-id': 'c', 'x-auth-user-id': '00u1' },
    ],
    [
      {
        example: 'entra',
        header: JWT,
        claims: { ...ENTRA_V2, tid: TENANT, oid: 'o', sub: 's', azp: 'c', scp: 'a b', ver: '2.0' },
      },
      { 'x-auth-scope': 'a b', 'x-auth-tenant': TENANT },
    ],
    [
      {
        example: 'entra',
        header: JWT,
        claims: {
          iss: `https://sts.windows.net/${TENANT}/`,
          aud: 'api://orders',
          tid: TENANT,
          oid: 'o',
          appid: 'c',
          roles: ['R'],
        },
      },
      { 'x-auth-client-id': 'c', 'x-auth-roles': 'R' },
    ],
    [
      { example: 'entra-multi-tenant', header: JWT, claims: { ...ENTRA_V2, tid: TENANT, scp: 'a' } },
      { 'x-auth-scope': 'a' },
    ],
    [
      {
        example: 'cognito',
        header: NO_TYP,
        claims: {
          ...COGNITO,
          token_use: 'access',
          client_id: '1example23456789',
          scope: 's',
          'cognito:groups': ['g1', 'g 2'],
        },
      },
      { 'x-auth-roles': 'g1,g 2' },
    ],
    [
      {
        example: 'keycloak',
        header: JWT,
        claims: {
          ...KEYCLOAK,
          typ: 'Bearer',
          aud: ['orders-api', 'account'],
          nonce: 'n',
          realm_access: { roles: ['r'] },
          resource_access: { 'orders-api': { roles: ['s', 'r'] } },
        },
      },
      { 'x-auth-roles': 'r,s' },
    ],
    [
      { example: 'google', header: JWT, claims: { ...GOOGLE, iss: 'https://accounts.google.com' } },
      { 'x-auth-subject': '1' },
    ],
    [
      { example: 'google', header: JWT, claims: { ...GOOGLE, iss: 'accounts.google.com' } },
      { 'x-auth-issuer': 'accounts.google.com' },
    ],
    [
      {
        example: 'kubernetes',
        header: NO_TYP,
        claims: {
          iss: 'https://kubernetes.default.svc.cluster.local',
          aud: ['orders-api'],
          sub: 'system:serviceaccount:shop:web',
          'kubernetes.io': { namespace: 'shop' },
        },
      },
      { 'x-auth-namespace': 'shop' },
    ],
    [
      {
        example: 'github-actions',
        header: JWT,
        claims: {
          iss: 'https://token.actions.githubusercontent.com',
          aud: 'https://api.example.com',
          sub: 'repo:o@1/r@2:ref:refs/heads/main',
          repository_owner_id: '123456',
        },
      },
      { 'x-auth-subject': 'repo:o@1/r@2:ref:refs/heads/main' },
    ],
    [
      {
        example: 'pingone',
        header: { typ: 'at+jwt' },
        claims: {
          iss: `https://auth.pingone.eu/${TENANT}/as`,
          aud: ['https://api.example.com'],
          client_id: 'c',
          scope: 's',
        },
      },
      { 'x-auth-scope': 's' },
    ],
    [
      {
        example: 'zitadel',
        header: JWT,
        claims: {
          iss: 'https://example.zitadel.cloud',
          aud: ['123456789012345678', 'x'],
          sub: '1',
          'urn:zitadel:iam:org:project:roles': { boss: { org: 'd' }, clerk: { org: 'd' } },
        },
      },
      { 'x-auth-roles': 'boss,clerk' },
    ],
    [
      {
        example: 'fusionauth',
        header: { typ: 'JWT', gty: ['password'] },
        claims: {
          iss: 'example.com',
          aud: '11111111-2222-4333-8444-555555555555',
          applicationId: '11111111-2222-4333-8444-555555555555',
          sub: '1',
          roles: ['a'],
        },
      },
      { 'x-auth-roles': 'a', 'x-auth-client-id': '11111111-2222-4333-8444-555555555555' },
    ],
    [
      {
        example: 'cloudflare-access',
        header: JWT,
        headerName: 'cf-access-jwt-assertion',
        claims: {
          iss: 'https://team.cloudflareaccess.com',
          type: 'app',
          aud: ['0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'],
          sub: '',
          common_name: 'service',
        },
      },
      { 'x-auth-subject': '' },
    ],
    [
      {
        example: 'generic',
        claims: { iss: 'https://auth.example.com', aud: 'https://api.example.com', sub: 'u', client_id: 'c' },
      },
      { 'x-auth-subject': 'u' },
    ],
  ])('%j', async (shape, headers) => {
    const answer = await send(shape)
    expect(answer.outcome).toBe('ok')
    expect(answer.headers).toMatchObject(headers)
    expect(answer.headers).not.toHaveProperty('authorization')
    expect(answer.headers).not.toHaveProperty('cf-access-jwt-assertion')
  })
})

describe('what the same provider makes for somebody else is refused', () => {
  it.each<[Shape, string]>([
    [
      {
        example: 'auth0',
        header: JWT,
        key: idKey,
        claims: { iss: 'https://tenant.eu.auth0.com/', aud: 'c1', sub: 'auth0|1', nonce: 'n' },
      },
      'id_token_not_accepted',
    ],
    [
      { example: 'auth0', header: JWT, claims: { iss: 'https://tenant.eu.auth0.com', aud: 'https://api.example.com' } },
      'issuer_unknown',
    ],
    [
      {
        example: 'workos-connect',
        header: NO_TYP,
        key: idKey,
        claims: { iss: 'https://subdomain.authkit.app', aud: 'https://api.example.com', sub: 'user_1' },
      },
      'id_token_not_accepted',
    ],
    [
      {
        example: 'workos-user-management',
        header: NO_TYP,
        claims: { iss: 'https://api.workos.com/', client_id: 'client_9', sub: 'u' },
      },
      'audience_mismatch',
    ],
    [
      {
        example: 'workos-user-management',
        header: NO_TYP,
        claims: { iss: 'https://api.workos.com/', client_id: 'client_123', sub: 'u', act: { sub: 'staff' } },
      },
      'claim_not_accepted',
    ],
    [
      { example: 'okta', header: NO_TYP, key: idKey, claims: { ...OKTA, aud: 'api://default' } },
      'id_token_not_accepted',
    ],
    [
      { example: 'okta', header: { typ: 'okta-internal-at+jwt' }, claims: { ...OKTA, cid: 'c' } },
      'token_type_not_accepted',
    ],
    [
      { example: 'okta', header: { typ: 'application/okta-internal-at+jwt' }, claims: { ...OKTA, cid: 'c' } },
      'token_type_not_accepted',
    ],
    [
      {
        example: 'entra',
        header: JWT,
        claims: { ...ENTRA_V2, iss: `https://login.microsoftonline.com/${OTHER_TENANT}/v2.0`, tid: OTHER_TENANT },
      },
      'issuer_unknown',
    ],
    [
      {
        example: 'entra-multi-tenant',
        header: JWT,
        claims: { ...ENTRA_V2, iss: `https://login.microsoftonline.com/${OTHER_TENANT}/v2.0`, tid: OTHER_TENANT },
      },
      'issuer_unknown',
    ],
    [{ example: 'entra-multi-tenant', header: JWT, claims: { ...ENTRA_V2, tid: OTHER_TENANT } }, 'issuer_unknown'],
    [{ example: 'entra-multi-tenant', header: JWT, claims: { ...ENTRA_V2 } }, 'issuer_unknown'],
    [
      {
        example: 'entra-multi-tenant',
        header: JWT,
        claims: { ...ENTRA_V2, iss: 'https://login.microsoftonline.com/{tenantid}/v2.0', tid: TENANT },
      },
      'issuer_unknown',
    ],
    // ID tokens of an application that is its own API: the audience is right.
    [
      {
        example: 'entra',
        header: JWT,
        claims: { ...ENTRA_V2, tid: TENANT, oid: 'o', sub: 's', roles: ['R'], name: 'N', ver: '2.0' },
      },
      'id_token_not_accepted',
    ],
    [
      { example: 'entra-multi-tenant', header: JWT, claims: { ...ENTRA_V2, tid: TENANT, preferred_username: 'a' } },
      'id_token_not_accepted',
    ],
    // Signed with the key of another tenant.
    [
      { example: 'entra-multi-tenant', header: JWT, key: tenantKey, claims: { ...ENTRA_V2, tid: TENANT } },
      'key_unknown',
    ],
    [
      {
        example: 'cognito',
        header: NO_TYP,
        key: idKey,
        claims: { ...COGNITO, token_use: 'id', aud: '1example23456789' },
      },
      'id_token_not_accepted',
    ],
    [
      { example: 'cognito', header: NO_TYP, claims: { ...COGNITO, token_use: 'access', client_id: 'other' } },
      'audience_mismatch',
    ],
    [
      { example: 'keycloak', header: JWT, claims: { ...KEYCLOAK, typ: 'ID', aud: 'orders-api' } },
      'id_token_not_accepted',
    ],
    [
      { example: 'keycloak', header: JWT, claims: { ...KEYCLOAK, typ: 'Refresh', aud: 'orders-api' } },
      'id_token_not_accepted',
    ],
    [{ example: 'keycloak', header: JWT, claims: { ...KEYCLOAK, typ: 'Bearer', aud: 'account' } }, 'audience_mismatch'],
    [{ example: 'keycloak', header: JWT, claims: { ...KEYCLOAK, typ: 'Bearer' } }, 'claim_missing'],
    [
      {
        example: 'google',
        header: JWT,
        claims: { ...GOOGLE, iss: 'https://accounts.google.com', hd: 'other.example' },
      },
      'claim_not_accepted',
    ],
    [{ example: 'google', header: JWT, claims: { ...GOOGLE, iss: 'https://accounts.google.com/' } }, 'issuer_unknown'],
    [
      {
        example: 'kubernetes',
        header: NO_TYP,
        claims: { iss: 'https://kubernetes.default.svc.cluster.local', aud: ['https://kubernetes.default.svc'] },
      },
      'audience_mismatch',
    ],
    [
      {
        example: 'github-actions',
        header: JWT,
        claims: {
          iss: 'https://token.actions.githubusercontent.com',
          aud: 'https://api.example.com',
          repository_owner_id: '1',
        },
      },
      'claim_not_accepted',
    ],
    [
      {
        example: 'cloudflare-access',
        header: JWT,
        claims: { iss: 'https://team.cloudflareaccess.com', type: 'app', aud: 'x' },
      },
      'credentials_missing',
    ],
    [
      { example: 'generic', header: JWT, claims: { iss: 'https://auth.example.com', aud: 'https://api.example.com' } },
      'token_type_not_accepted',
    ],
  ])('%j: %s', async (shape, code) => {
    upstream.requests.splice(0)
    expect((await send(shape)).outcome).toBe(code)
    expect(upstream.requests).toEqual([])
  })
})

describe('a credential that is no JWT', () => {
  it.each([
    ['ya29.a0AfH6SMBx', /Google, which only Google can read: send an ID token/],
    ['8d7f6a5b4c3d2e1f', /opaque: ask the issuer for a JWT, at Auth0 by naming the audience/],
    ['eyJhbGciOiJkaXIifQ..a.b.c', /encrypted \(JWE\)/],
  ])('%s: the log names the cure', async (token, expected) => {
    const sidecar = await start('auth0')
    const response = await fetch(`${sidecar.proxy}/a`, { headers: { authorization: `Bearer ${token}` } })
    expect(response.status).toBe(401)
    expect(sidecar.lastRequest()).toMatchObject({
      code: 'token_malformed',
      detail: { reason: expect.stringMatching(expected) as string },
    })
    expect(sidecar.logText()).not.toContain(token)
  })

  it.each<[string, Shape, string, RegExp]>([
    [
      'a slash too few',
      { example: 'auth0', header: JWT, claims: { iss: 'https://tenant.eu.auth0.com', aud: 'https://api.example.com' } },
      'issuer_unknown',
      /^they differ by the slash at the end$/,
    ],
    [
      'version 1 of a tenant',
      {
        example: 'entra-multi-tenant',
        header: JWT,
        claims: { iss: `https://sts.windows.net/${TENANT}/`, tid: TENANT },
      },
      'issuer_unknown',
      /version 1: accept this issuer, too, or set requestedAccessTokenVersion: 2/,
    ],
    [
      'the org authorization server',
      { example: 'okta', header: NO_TYP, claims: { ...OKTA, iss: 'https://example.okta.com' } },
      'issuer_unknown',
      /org authorization server, which only Okta can verify: ask the custom one/,
    ],
    [
      'the type of the org authorization server',
      { example: 'okta', header: { typ: 'application/okta-internal-at+jwt' }, claims: OKTA },
      'token_type_not_accepted',
      /org authorization server, which only Okta can verify/,
    ],
  ])('of %s: the log names the cure', async (_what, shape, code, hint) => {
    const sidecar = await start(shape.example)
    expect((await send(shape)).outcome).toBe(code)
    expect(sidecar.lastRequest()).toMatchObject({ code, detail: { hint: expect.stringMatching(hint) as string } })
  })
})
