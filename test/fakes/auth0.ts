import { randomUUID } from 'node:crypto'
import {
  readParameters,
  refuse,
  serveProvider,
  type ProviderAnswer,
  type ProviderRequest,
  type Routes,
} from './provider-server.ts'
import type { Consent } from './provider-state.ts'
import { Provider, type Parameters } from './provider.ts'
import { createSigningKey, signJwt } from './signer.ts'

/** What an operator of the tenant sets, or what happens to it. */
export interface Auth0Settings {
  /** Section 3.5: rotation is chosen per application, its leeway is 0 unless it is set. */
  readonly rotates: boolean
  readonly leewayMs: number
  /** The profile of access tokens (section 3.2). */
  readonly profile: 'auth0' | 'rfc9068'
  /** A refresh asks for a second factor; its status differs within the documentation (section 4, "Errors"). */
  readonly mfa: 401 | 403 | undefined
  /** Requests left before 429. */
  readonly remaining: number
  /** Document 001 shows an answer without it. */
  readonly sendsExpiresIn: boolean
}

const DEFAULTS: Auth0Settings = {
  rotates: true,
  leewayMs: 0,
  profile: 'auth0',
  mfa: undefined,
  remaining: 1_000,
  sendsExpiresIn: true,
}
/** Section 4, "Lifetimes". */
const LIFETIME_SECONDS = 86_400
const USER = 'auth0|5f7c8ec7c33c6c004bbafe82'
/**
 * A tenant of Auth0 as far as the notes on providers describe it: section 4, with 3.2 for the tokens, 3.4 for the device
 * flow and 3.5 for rotation. Where they leave something open, RFC 6749 decides, and a comment says so.
 */
export class Auth0 extends Provider<Auth0Settings> {
  readonly audience = 'https://api.example.com'
  readonly web = { clientId: 'Web0aBcDeFgHiJkLmNoPqRsTuVwXyZ12', secret: 'web-secret:%+/ é' }
  readonly worker = { clientId: 'WorkeraBcDeFgHiJkLmNoPqRsTuVwXyZ', secret: 'worker-secret' }
  readonly native = { clientId: 'NatiVeaBcDeFgHiJkLmNoPqRsTuVwXyZ' }
  readonly key = createSigningKey('RS256', 'NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4')

  constructor() {
    super({
      defaults: DEFAULTS,
      user: USER,
      deviceLifetimeMs: 900_000,
      target: 'audience',
      toRefreshSettings: ({ rotates, leewayMs }) => ({ rotates, graceMs: leewayMs, revokesOnReuse: true }),
      words: {
        invalid_client: 'Unauthorized',
        invalid_grant: 'Invalid authorization code',
        unsupported_grant_type: 'Unsupported grant type',
      },
    })
  }

  routes(origin: string): Routes {
    // With the slash at the end (section 3.1).
    this.issuer = `${origin}/`
    const metadata = {
      issuer: this.issuer,
      authorization_endpoint: `${origin}/authorize`,
      token_endpoint: `${origin}/oauth/token`,
      device_authorization_endpoint: `${origin}/oauth/device/code`,
      revocation_endpoint: `${origin}/oauth/revoke`,
      jwks_uri: `${origin}/.well-known/jwks.json`,
    }
    const publish = () => ({ status: 200, body: metadata })
    return {
      // The user has agreed already.
      'GET /authorize': ({ query }) => ({ status: 302, body: '', headers: { location: this.agree(query).href } }),
      'GET /.well-known/openid-configuration': publish,
      'GET /.well-known/oauth-authorization-server': publish,
      'GET /.well-known/jwks.json': () => ({ status: 200, body: { keys: [this.key.jwk] } }),
      'POST /oauth/token': (request) => this.#limit(() => this.#token(request)),
      'POST /oauth/device/code': (request) => this.#startDevice(request),
      'POST /oauth/revoke': (request) => this.#revoke(request),
    }
  }

  /** Section 4, "Rate limits". */
  #limit(answer: () => ProviderAnswer): ProviderAnswer {
    const left = this.settings.remaining
    this.settings = { ...this.settings, remaining: Math.max(0, left - 1) }
    const headers = {
      'x-ratelimit-limit': '30',
      'x-ratelimit-remaining': String(this.settings.remaining),
      'x-ratelimit-reset': String(Math.floor(Date.now() / 1000) + 1),
    }
    return { ...(left > 0 ? answer() : refuse(429, 'too_many_requests', 'Global limit has been reached')), headers }
  }

  #token(request: ProviderRequest): ProviderAnswer {
    // Section 4, "Content types": the one endpoint that takes JSON, too.
    const parameters = readParameters(request, { json: true })
    if (parameters === undefined) return refuse(400, 'invalid_request', 'The body cannot be read.')
    return this.spend(request, parameters)
  }

  /** Section 4, "Refresh". */
  protected refresh(parameters: Parameters, clientId: string): ProviderAnswer {
    const { mfa } = this.settings
    if (mfa !== undefined) {
      const more = { mfa_token: 'Fe26.2*mfa-token', mfa_requirements: { challenge: [{ type: 'otp' }] } }
      return refuse(mfa, 'mfa_required', 'Multifactor authentication required', more)
    }
    const result = this.refreshTokens.spend(parameters.get('refresh_token') ?? '', clientId)
    if (typeof result === 'string') return refuse(403, 'invalid_grant', 'Unknown or invalid refresh token.')
    return this.tokens({ ...result.consent, nonce: undefined }, result.next, 'refresh_token')
  }

  /** Section 3.4; the text of the first one is that of document 000. */
  protected poll(parameters: Parameters, clientId: string): ProviderAnswer {
    if (clientId !== this.native.clientId) return this.#refuseOthers()
    const result = this.devices.poll(parameters.get('device_code') ?? '', clientId)
    switch (result) {
      case 'pending':
        return refuse(403, 'authorization_pending', 'User has yet to authorize device code.')
      case 'slow_down':
        return refuse(429, 'slow_down', 'You are polling faster than the specified interval of 5 seconds.')
      case 'expired':
        return refuse(403, 'expired_token', 'The code has expired.')
      case 'denied':
        return refuse(403, 'access_denied', 'User cancelled the confirmation prompt.')
      case 'over':
        // The status is not documented for this one: that of other grants.
        return refuse(400, 'invalid_grant', 'Invalid or expired device code.')
      default:
        return this.first(result)
    }
  }

  /** Native applications without authentication only. The error for others is that of RFC 6749 §5.2. */
  #refuseOthers(): ProviderAnswer {
    return refuse(400, 'unauthorized_client', 'Not a native application.')
  }

  protected authenticateClient(parameters: Parameters, clientId: string): ProviderAnswer {
    if (clientId !== this.worker.clientId) return refuse(400, 'unauthorized_client', 'Grant not allowed.')
    const consent = { clientId, sub: `${clientId}@clients`, scope: '', audience: parameters.get('audience') }
    return this.tokens({ ...consent, nonce: undefined }, undefined, 'client-credentials')
  }

  protected tokens(consent: Consent, refreshToken: string | undefined, gty?: string): ProviderAnswer {
    const { sub, scope, clientId, nonce } = consent
    const body: Record<string, unknown> = { access_token: this.#accessToken(consent, gty) }
    if (refreshToken !== undefined) body['refresh_token'] = refreshToken
    if (scope.split(' ').includes('openid')) {
      const claims = { iss: this.issuer, sub, aud: clientId, ...this.#times(), nonce }
      body['id_token'] = signJwt(this.key, claims, { typ: 'JWT' })
    }
    if (this.settings.sendsExpiresIn) body['expires_in'] = LIFETIME_SECONDS
    return { status: 200, body: { ...body, token_type: 'Bearer' } }
  }

  /** Section 4, "Access token": opaque without an audience, and with `openid` for /userinfo as well. */
  #accessToken({ sub, scope, clientId, audience }: Consent, gty: string | undefined): string {
    if (audience === undefined) return `opaque-${randomUUID()}`
    const aud = scope.split(' ').includes('openid') ? [audience, `${this.issuer}userinfo`] : audience
    const claims = { iss: this.issuer, sub, aud, ...this.#times(), scope }
    if (this.settings.profile === 'rfc9068') {
      return signJwt(this.key, { ...claims, client_id: clientId, jti: randomUUID() }, { typ: 'at+jwt' })
    }
    return signJwt(this.key, { ...claims, azp: clientId, gty }, { typ: 'JWT' })
  }

  #times() {
    const now = Math.floor(Date.now() / 1000)
    return { iat: now, exp: now + LIFETIME_SECONDS }
  }

  #startDevice(request: ProviderRequest): ProviderAnswer {
    const parameters = readParameters(request, { json: false })
    if (parameters === undefined) return refuse(400, 'invalid_request', 'Only a form is read here.')
    const clientId = parameters.get('client_id') ?? ''
    if (clientId !== this.native.clientId) return this.#refuseOthers()
    const scope = parameters.get('scope') ?? ''
    const consent = { clientId, scope, audience: parameters.get('audience'), nonce: undefined }
    // The members are those of RFC 8628 §3.2, the figures those of section 3.4.
    return {
      status: 200,
      body: { ...this.devices.start(consent, `${this.issuer}activate`), expires_in: 900, interval: 5 },
    }
  }

  /** Section 4, "Content types": the answer is a text. */
  #revoke(request: ProviderRequest): ProviderAnswer {
    const parameters = readParameters(request, { json: false })
    if (parameters === undefined) return refuse(400, 'invalid_request', 'Only a form is read here.')
    if (this.authenticate(request, parameters) === undefined) return this.refuseClient()
    this.refreshTokens.revoke(parameters.get('token') ?? '')
    return { status: 200, body: 'OK' }
  }
}

/** Starts a tenant on loopback. */
export async function startAuth0(): Promise<Auth0> {
  const auth0 = new Auth0()
  auth0.server = await serveProvider((origin) => auth0.routes(origin))
  return auth0
}
