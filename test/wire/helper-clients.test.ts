import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as openid from 'openid-client'
import { AuthorizationCode, ClientCredentials } from 'simple-oauth2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAuth0, type Auth0 } from '../fakes/auth0.ts'
import { expectToOpen } from '../fakes/handed-out.ts'
import { startHelperExample } from '../fakes/helper-example.ts'
import { refuse, serveProvider, type ProviderServer } from '../fakes/provider-server.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

/** Libraries as applications use them, with nothing changed but the address, and without a secret. */
const CALLBACK = 'https://app.example.com/callback'
const MOBILE = 'https://tenant.eu.auth0.com/mobile'

let auth0: Auth0
let upstream: FakeUpstream
let sidecar: FakeSidecar
/** A helper that wants to know who asks. */
let guarded: FakeSidecar
const SHARED = 'shared-secret: of the backend!'

beforeAll(async () => {
  auth0 = await startAuth0()
  upstream = await startUpstream()
  sidecar = await startHelperExample({
    name: 'auth0-helper',
    issuer: auth0.issuer,
    upstream: upstream.url,
    clients: auth0,
  })
  guarded = await startHelperExample({
    ...{ name: 'auth0-helper', issuer: auth0.issuer, upstream: upstream.url, clients: auth0 },
    helper: { callers: { backend: { shared_secret: { env: 'SHARED' } } } },
    env: { SHARED },
  })
})
afterAll(async () => {
  await stopSidecars()
  await auth0.server.stop()
  await upstream.stop()
})

describe('openid-client', () => {
  /** Everything it needs to know is behind the address of the helper. */
  const discover = (clientId: string) =>
    openid.discovery(
      new URL(`${sidecar.helper}/.well-known/oauth-authorization-server`),
      clientId,
      undefined,
      openid.None(),
      { execute: [openid.allowInsecureRequests] },
    )

  it('finds the endpoints of the helper, and the rest of the issuer', async () => {
    const metadata = (await discover(auth0.web.clientId)).serverMetadata()
    expect(metadata).toMatchObject({
      issuer: auth0.issuer,
      authorization_endpoint: `${auth0.server.origin}/authorize`,
      token_endpoint: `${sidecar.helper}/oauth2/token`,
      device_authorization_endpoint: `${sidecar.helper}/oauth2/device_authorization`,
      revocation_endpoint: `${sidecar.helper}/oauth2/revoke`,
      jwks_uri: `${auth0.server.origin}/.well-known/jwks.json`,
    })
  })

  it.each(['web', 'native'] as const)('signs in by a code with PKCE, refreshes and revokes (%s)', async (name) => {
    const config = await discover(auth0[name].clientId)
    openid.enableNonRepudiationChecks(config)
    const verifier = openid.randomPKCECodeVerifier()
    const [state, nonce] = [openid.randomState(), openid.randomNonce()]
    const url = openid.buildAuthorizationUrl(config, {
      redirect_uri: name === 'web' ? CALLBACK : MOBILE,
      scope: 'openid offline_access',
      audience: auth0.audience,
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      ...{ state, nonce },
    })
    const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce }
    const tokens = await openid.authorizationCodeGrant(config, auth0.signIn(url), checks, { nonce })
    expect(tokens.claims()?.sub).toMatch(/^auth0\|/)
    await expectToOpen(sidecar, tokens.access_token)
    const renewed = await openid.refreshTokenGrant(config, tokens.refresh_token ?? '')
    await expectToOpen(sidecar, renewed.access_token)
    await openid.tokenRevocation(config, renewed.refresh_token ?? '', { token_type_hint: 'refresh_token' })
    expect(auth0.refreshTokens.isAlive(renewed.refresh_token ?? '')).toBe(false)
    await expect(openid.refreshTokenGrant(config, renewed.refresh_token ?? '')).rejects.toMatchObject({
      error: 'invalid_grant',
      status: 403,
    })
  })

  it('signs in on another device', { timeout: 40_000 }, async () => {
    const config = await discover(auth0.native.clientId)
    const device = await openid.initiateDeviceAuthorization(config, {
      scope: 'openid offline_access',
      audience: auth0.audience,
    })
    setTimeout(() => auth0.approve(device.user_code), 7_000)
    const tokens = await openid.pollDeviceAuthorizationGrant(config, device)
    expect(tokens.refresh_token).toMatch(/^rt_/)
    await expectToOpen(sidecar, tokens.access_token)
  })

  it('is told when the user of the device declines', { timeout: 40_000 }, async () => {
    const config = await discover(auth0.native.clientId)
    const device = await openid.initiateDeviceAuthorization(config, { scope: 'openid' })
    auth0.devices.deny(device.user_code)
    await expect(openid.pollDeviceAuthorizationGrant(config, device)).rejects.toMatchObject({ error: 'access_denied' })
  })

  it('gets tokens for an application itself', async () => {
    const config = await discover(auth0.worker.clientId)
    const tokens = await openid.clientCredentialsGrant(config, { audience: auth0.audience })
    await expectToOpen(sidecar, tokens.access_token)
  })
})

describe('token exchange', () => {
  const TYPE = 'urn:ietf:params:oauth:token-type:access_token'
  const request = {
    subject_token: 'token-of-the-user',
    subject_token_type: TYPE,
    audience: 'https://other.example.com',
  }
  const grantType = 'urn:ietf:params:oauth:grant-type:token-exchange'
  let exchanging: FakeSidecar
  let issuer: ProviderServer

  beforeAll(async () => {
    const body = { access_token: 'exchanged', issued_token_type: TYPE, token_type: 'Bearer', expires_in: 60 }
    issuer = await serveProvider((origin) => ({
      'GET /.well-known/openid-configuration': () => ({
        status: 200,
        body: { issuer: origin, token_endpoint: `${origin}/token`, jwks_uri: `${origin}/jwks` },
      }),
      'GET /jwks': () => ({ status: 200, body: { keys: [auth0.key.jwk] } }),
      'POST /token': ({ body: text }) =>
        new URLSearchParams(text).get('subject_token') === request.subject_token
          ? { status: 200, body }
          : refuse(400, 'invalid_request', 'The subject token is invalid.'),
    }))
    exchanging = await startSidecar({
      config: {
        issuers: [{ name: 'main', issuer: issuer.origin, audience: auth0.audience }],
        upstream: upstream.url,
        helper: {
          clients: { api: { client_id: 'api', client_secret: { env: 'API_SECRET' }, grants: ['token_exchange'] } },
        },
      },
      env: { API_SECRET: 'secret-of-the-api' },
    })
    await exchanging.ready()
    return () => issuer.stop()
  })

  it('is done by openid-client', async () => {
    const server = { issuer: issuer.origin, token_endpoint: `${exchanging.helper}/oauth2/token` }
    const config = new openid.Configuration(server, 'api', undefined, openid.None())
    openid.allowInsecureRequests(config)
    const tokens = await openid.genericGrantRequest(config, grantType, request)
    expect(tokens).toMatchObject({ access_token: 'exchanged', issued_token_type: TYPE })
  })

  it('is done by curl', async () => {
    const parameters = Object.entries({ grant_type: grantType, client_id: 'api', ...request })
    const { stdout } = await promisify(execFile)('curl', [
      ...['--silent', '--show-error', '--fail-with-body', `${exchanging.helper}/oauth2/token`],
      ...parameters.flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`]),
    ])
    expect(JSON.parse(stdout)).toMatchObject({ access_token: 'exchanged', issued_token_type: TYPE })
  })
})

describe('with a secret that the helper knows the application by', () => {
  it.each([
    ['client_secret_basic', openid.ClientSecretBasic(SHARED)],
    ['client_secret_post', openid.ClientSecretPost(SHARED)],
  ])('openid-client works by %s', async (_method, authentication) => {
    const config = await openid.discovery(
      new URL(`${guarded.helper}/.well-known/oauth-authorization-server`),
      auth0.worker.clientId,
      undefined,
      authentication,
      { execute: [openid.allowInsecureRequests] },
    )
    const tokens = await openid.clientCredentialsGrant(config, { audience: auth0.audience })
    await expectToOpen(sidecar, tokens.access_token)
  })

  it.each(['header', 'body'] as const)('simple-oauth2 works with the secret in the %s', async (place) => {
    const client = new ClientCredentials({
      client: { id: auth0.worker.clientId, secret: SHARED },
      auth: { tokenHost: guarded.helper },
      options: { authorizationMethod: place },
    })
    const { token } = await client.getToken({ audience: auth0.audience })
    await expectToOpen(sidecar, token['access_token'])
  })

  it('neither works with another one', async () => {
    const client = new ClientCredentials({
      client: { id: auth0.worker.clientId, secret: 'shared-secret: of somebody else' },
      auth: { tokenHost: guarded.helper },
    })
    await expect(client.getToken({ audience: auth0.audience })).rejects.toMatchObject({ output: { statusCode: 401 } })
  })
})

describe('simple-oauth2', () => {
  /** It cannot leave the secret out: an empty parameter counts as none (RFC 6749 §3.1). */
  const application = ({ clientId }: { clientId: string }) => ({
    client: { id: clientId, secret: '' },
    auth: { tokenHost: sidecar.helper },
    options: { authorizationMethod: 'body' as const },
  })

  it('signs in by a code, refreshes and revokes', async () => {
    const { auth, ...rest } = application(auth0.web)
    const authorize = { authorizeHost: auth0.server.origin, authorizePath: '/authorize' }
    const client = new AuthorizationCode({ ...rest, auth: { ...auth, ...authorize } })
    const asked = { redirect_uri: CALLBACK, scope: 'openid offline_access', state: 's-1' }
    const url = new URL(client.authorizeURL(asked))
    url.searchParams.set('audience', auth0.audience)
    const code = auth0.signIn(url).searchParams.get('code') ?? ''
    const tokens = await client.getToken({ code, redirect_uri: CALLBACK })
    await expectToOpen(sidecar, tokens.token['access_token'])
    const renewed = await tokens.refresh()
    await expectToOpen(sidecar, renewed.token['access_token'])
    await renewed.revoke('refresh_token')
    await expect(renewed.refresh()).rejects.toMatchObject({ output: { statusCode: 403 } })
  })

  it('gets tokens for an application itself', async () => {
    const client = new ClientCredentials(application(auth0.worker))
    const { token } = await client.getToken({ audience: auth0.audience })
    await expectToOpen(sidecar, token['access_token'])
  })
})
