import { hash, randomBytes, randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import Provider from 'oidc-provider'
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js'
import { freePort } from './free-port.ts'
import { createSigningKey, signJwt, type Alg, type SigningKey } from './signer.ts'

/** `lost`: the request is served in full, and its answer never arrives. */
export type FailureMode = '500' | 'hang' | 'reset' | 'html' | 'empty' | 'lost'
type Endpoint = 'token' | 'device' | 'revocation' | 'jwks' | 'discovery'

export interface AuthorizationServerOptions {
  /** 0 for any free port. */
  readonly port?: number
  readonly audience?: string
  readonly accessTokenTtlSeconds?: number
  readonly alg?: Alg
  /** Serves `GET /dev/…` and `POST /dev/…`, by which a person without a browser gets tokens to play with. */
  readonly development?: boolean
  /** Secret of the client `service`; by default a new one at every start. */
  readonly serviceSecret?: string
}

/** What an authorization code is bound to. */
export interface CodeBinding {
  readonly clientId?: string
  readonly codeVerifier?: string
  readonly nonce?: string
  readonly scope?: string
}

/** A real authorization server on loopback, with switches that break it. */
export interface AuthorizationServer {
  readonly issuer: string
  readonly port: number
  readonly audience: string
  readonly clients: Readonly<Record<'web' | 'webPost' | 'service' | 'odd', { id: string; secret: string }>>
  /** How often each endpoint was asked. */
  readonly requests: Record<Endpoint, number>
  /** A refresh token of a signed-in user, with rotation and reuse detection behind it. */
  signIn(clientId?: string, scope?: string): Promise<string>
  /** An authorization code of a signed-in user, bound to what is given. */
  issueCode(binding?: CodeBinding): Promise<string>
  /** The user of a device decides: yes by default. */
  decideDevice(userCode: string, decision?: 'yes' | 'no'): Promise<void>
  /** An access token of the current key with any claims; `undefined` leaves one out. */
  signAccessToken(claims?: Record<string, unknown>, header?: Record<string, unknown>): string
  /** Gives a client another secret. */
  changeSecret(client: keyof AuthorizationServer['clients'], secret: string): void
  /** The public keys of the client `signing`, as JWKs. */
  trustClientKeys(...keys: object[]): void
  /** Signs with a new key from now on, and publishes it beside the old ones. */
  rotateKeys(): void
  /** Publishes the current key alone. */
  dropOldKeys(): void
  fail(endpoint: Endpoint, mode: FailureMode | undefined): void
  /** Answers of the token endpoint wait for this long, in milliseconds. */
  delayTokens(ms: number): void
  /** Changes what the token endpoint answers, as a provider with a fault would. */
  tamper(change: ((body: Record<string, unknown>) => Record<string, unknown>) | undefined): void
  /** Takes the server off its port, and puts it back on the same one. */
  stop(): Promise<void>
  restart(): Promise<void>
}

/** One store for all generations of keys. */
const store = createMemoryAdapter(0)

/** The name in the certificate of the client `certified`. */
export const CERTIFIED_NAME = 'client.bearward.test'

interface Context {
  get(header: string): string
}

/** Of every client that has one. */
export const REDIRECT_URI = 'https://app.bearward.test/callback'
export const SCOPES = 'read:orders write:orders admin'
/** Claims of every access token, beside the standard ones. */
export const EXTRA_CLAIMS = { org_id: 'org_1', 'https://bearward.test/roles': ['reader', 'a,b'] }

/**
 * Starts the authorization server on 127.0.0.1: JWT access tokens, refresh-token rotation with reuse detection, PKCE,
 * device flow, client credentials.
 */
export async function startAuthorizationServer(options: AuthorizationServerOptions = {}): Promise<AuthorizationServer> {
  const { audience = 'https://api.bearward.test', accessTokenTtlSeconds = 600, alg = 'RS256' } = options
  const secret = () => randomBytes(24).toString('base64url')
  const clients = {
    web: { id: 'web', secret: secret() },
    webPost: { id: 'web-post', secret: secret() },
    service: { id: 'service', secret: options.serviceSecret ?? secret() },
    // Everything that the encodings of client_secret_basic differ in.
    odd: { id: 'odd:client+% id', secret: 'a:b%2B+c d~!*()&=?/' },
  }
  let clientKeys: readonly object[] = []
  let keys: SigningKey[] = [createSigningKey(alg, randomUUID())]
  const current = () => keys[0] as SigningKey
  const requests = { token: 0, device: 0, revocation: 0, jwks: 0, discovery: 0 }
  const failures = new Map<Endpoint, FailureMode>()
  let delayMs = 0
  let change: ((body: Record<string, unknown>) => Record<string, unknown>) | undefined
  const port = options.port === undefined || options.port === 0 ? await freePort() : options.port
  let provider: Provider

  const server = createServer((request, response) => void serve(request, response))
  const listen = () =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => resolve())
    })
  await listen()
  const issuer = `http://127.0.0.1:${port}`

  const rebuild = () => {
    provider = new Provider(
      issuer,
      toConfiguration({ keys, clients, clientKeys, audience, alg, accessTokenTtlSeconds }),
    )
  }
  rebuild()

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?', 1)[0] as string
    const endpoint = toEndpoint(path)
    if (endpoint !== undefined) requests[endpoint] += 1
    if (endpoint === 'token' && delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs))
    const mode = endpoint === undefined ? undefined : failures.get(endpoint)
    if (mode === 'lost') loseAnswer(response)
    else if (mode !== undefined) return misbehave(mode, response)
    if (options.development === true && path.startsWith('/dev/')) return serveDevelopment(request, response)
    if (endpoint === 'token' && change !== undefined) tamperWith(response, change)
    provider.callback()(request, response)
  }

  async function serveDevelopment({ url = '' }: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(url, issuer)
    const texts: Record<string, () => string | Promise<string>> = {
      '/dev/refresh-token': () => signIn('web', 'openid offline_access read:orders'),
      '/dev/expired-token': () => signAccessToken({ iat: now() - 7200, exp: now() - 3600 }),
      '/dev/approve': async () => {
        await decideDevice(searchParams.get('user_code') ?? '')
        return 'signed in\n'
      },
    }
    const text = await Promise.resolve(texts[pathname]?.()).catch((error: unknown) => `${String(error)}\n`)
    response.writeHead(text === undefined ? 404 : 200, { 'content-type': 'text/plain' }).end(text ?? 'not found\n')
  }

  const now = () => Math.floor(Date.now() / 1000)

  const signAccessToken = (claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}) =>
    signJwt(
      current(),
      {
        iss: issuer,
        aud: audience,
        sub: 'user-1',
        client_id: 'web',
        scope: 'read:orders',
        iat: now(),
        exp: now() + accessTokenTtlSeconds,
        jti: randomUUID(),
        ...EXTRA_CLAIMS,
        ...claims,
      },
      header,
    )

  async function saveGrant(clientId: string, scope: string): Promise<string> {
    const grant = new provider.Grant({ accountId: 'user-1', clientId })
    grant.addOIDCScope(scope)
    grant.addResourceScope(audience, SCOPES)
    return grant.save()
  }

  async function issueCode(binding: CodeBinding = {}): Promise<string> {
    const { clientId = 'web', codeVerifier, nonce, scope = 'openid offline_access read:orders' } = binding
    const code = new provider.AuthorizationCode({
      accountId: 'user-1',
      authTime: now(),
      client: await provider.Client.find(clientId),
      grantId: await saveGrant(clientId, scope),
      redirectUri: REDIRECT_URI,
      resource: audience,
      scope,
      ...(nonce !== undefined && { nonce }),
      ...(codeVerifier !== undefined && {
        codeChallenge: hash('sha256', codeVerifier, 'base64url'),
        codeChallengeMethod: 'S256',
      }),
    })
    return code.save()
  }

  async function decideDevice(userCode: string, decision: 'yes' | 'no' = 'yes'): Promise<void> {
    const code = await provider.DeviceCode.findByUserCode(userCode.toUpperCase().replace(/\W/g, ''))
    if (code === undefined) throw new Error(`no device waits with the code ${userCode}`)
    const scope = 'openid offline_access read:orders'
    const yes = { accountId: 'user-1', authTime: now(), grantId: await saveGrant(code.clientId, scope), scope }
    Object.assign(code, decision === 'yes' ? { ...yes, resource: audience } : { error: 'access_denied' })
    await code.save()
  }

  async function signIn(clientId = 'web', scope = 'openid offline_access read:orders'): Promise<string> {
    const token = new provider.RefreshToken({
      accountId: 'user-1',
      authTime: now(),
      client: await provider.Client.find(clientId),
      grantId: await saveGrant(clientId, scope),
      gty: 'authorization_code',
      resource: audience,
      scope,
      rotations: 0,
      iiat: now(),
    })
    return token.save()
  }

  return {
    issuer,
    port,
    audience,
    clients,
    requests,
    signIn,
    issueCode,
    decideDevice,
    signAccessToken,
    changeSecret(client, next) {
      clients[client].secret = next
      rebuild()
    },
    trustClientKeys(...trusted) {
      clientKeys = trusted
      rebuild()
    },
    rotateKeys() {
      keys = [createSigningKey(alg, randomUUID()), ...keys]
      rebuild()
    },
    dropOldKeys() {
      keys = [current()]
      rebuild()
    },
    fail: (endpoint, mode) => void (mode === undefined ? failures.delete(endpoint) : failures.set(endpoint, mode)),
    delayTokens: (ms) => void (delayMs = ms),
    tamper: (next) => void (change = next),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
    restart: listen,
  }
}

function toEndpoint(path: string): Endpoint | undefined {
  if (path === '/token') return 'token'
  if (path === '/jwks') return 'jwks'
  if (path === '/device/auth') return 'device'
  if (path === '/token/revocation') return 'revocation'
  return path.includes('/.well-known/') ? 'discovery' : undefined
}

/** Replaces the body that the provider is about to send. */
function tamperWith(
  response: ServerResponse,
  change: (body: Record<string, unknown>) => Record<string, unknown>,
): void {
  const end = response.end.bind(response) as (chunk: string) => ServerResponse
  response.end = ((chunk: string | Buffer) => {
    const body = JSON.stringify(change(JSON.parse(String(chunk)) as Record<string, unknown>))
    response.setHeader('content-length', Buffer.byteLength(body))
    return end(body)
  }) as ServerResponse['end']
}

function loseAnswer(response: ServerResponse): void {
  response.end = () => response.destroy()
}

function misbehave(mode: Exclude<FailureMode, 'lost'>, response: ServerResponse): void {
  switch (mode) {
    case '500':
      response.writeHead(500, { 'content-type': 'text/plain' }).end('broken')
      return
    case 'html':
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>maintenance</html>')
      return
    case 'empty':
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"keys":[]}')
      return
    case 'reset':
      response.destroy()
      return
    case 'hang':
      return
  }
}

interface ConfigurationParts {
  readonly keys: readonly SigningKey[]
  readonly clients: AuthorizationServer['clients']
  readonly clientKeys: readonly object[]
  readonly audience: string
  readonly alg: Alg
  readonly accessTokenTtlSeconds: number
}

function toConfiguration({ keys, clients, clientKeys, audience, alg, accessTokenTtlSeconds }: ConfigurationParts) {
  const redirect = { redirect_uris: [REDIRECT_URI], response_types: ['code'] }
  const idToken = { id_token_signed_response_alg: alg }
  const code = { ...redirect, ...idToken, grant_types: ['authorization_code', 'refresh_token'] }
  const none = { token_endpoint_auth_method: 'none' }
  const bare = { redirect_uris: [], response_types: [], ...idToken }
  const lifetimes = ['AccessToken', 'AuthorizationCode', 'ClientCredentials', 'DeviceCode', 'Grant', 'IdToken']
  return {
    adapter: store,
    jwks: {
      keys: keys.map(({ privateKey, jwk }) => ({ ...privateKey.export({ format: 'jwk' }), ...jwk })),
    },
    clients: [
      { client_id: clients.web.id, client_secret: clients.web.secret, ...code },
      {
        client_id: clients.webPost.id,
        client_secret: clients.webPost.secret,
        token_endpoint_auth_method: 'client_secret_post',
        ...code,
      },
      {
        client_id: clients.service.id,
        client_secret: clients.service.secret,
        ...bare,
        grant_types: ['client_credentials'],
      },
      { client_id: clients.odd.id, client_secret: clients.odd.secret, ...code },
      {
        client_id: 'certified',
        token_endpoint_auth_method: 'tls_client_auth',
        tls_client_auth_san_dns: CERTIFIED_NAME,
        ...code,
      },
      ...(clientKeys.length === 0
        ? []
        : [
            {
              client_id: 'signing',
              token_endpoint_auth_method: 'private_key_jwt',
              jwks: { keys: clientKeys },
              ...code,
            },
          ]),
      { client_id: 'native', application_type: 'native', ...none, ...code },
      {
        client_id: 'device',
        ...none,
        ...bare,
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      },
    ],
    cookies: { keys: [randomBytes(24).toString('hex')] },
    routes: { jwks: '/jwks', token: '/token' },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth', 'none'],
    scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
    pkce: { required: () => false },
    rotateRefreshToken: true,
    findAccount: (_context: unknown, id: string) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: () => EXTRA_CLAIMS,
    ttl: {
      ...Object.fromEntries([...lifetimes, 'Interaction', 'RefreshToken', 'Session'].map((name) => [name, 86_400])),
      AccessToken: accessTokenTtlSeconds,
      ClientCredentials: accessTokenTtlSeconds,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: {
        enabled: true,
        allowedPolicy: (_context: unknown, client: { clientId: string }, token: { clientId?: string }) =>
          token.clientId === client.clientId,
      },
      // As behind a proxy that ends TLS.
      mTLS: {
        enabled: true,
        tlsClientAuth: true,
        getCertificate: (context: Context) => context.get('x-client-certificate'),
        certificateAuthorized: (context: Context) => context.get('x-client-verify') === 'SUCCESS',
        certificateSubjectMatches: (context: Context, _property: string, expected: string) =>
          context.get('x-client-name') === expected,
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: SCOPES,
          audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: accessTokenTtlSeconds,
          jwt: { sign: { alg } },
        }),
      },
    },
  }
}
