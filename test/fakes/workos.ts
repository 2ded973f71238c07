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
import { DEVICE_CODE, Provider, type Parameters } from './provider.ts'
import { createSigningKey, signJwt } from './signer.ts'

/** What happens to the environment. */
export interface WorkosSettings {
  /** Section 3.5: documented without a length; some 10 to 30 seconds. */
  readonly graceMs: number
  /** Section 3.5: concurrent use of one refresh token can give 429. */
  readonly isBusy: boolean
}

const DEFAULTS: WorkosSettings = { graceMs: 10_000, isBusy: false }
const LIFETIME_SECONDS = 3_600
const USER = 'user_01H5JQDV7R7ATEYZDEG0W5PRYS'

/**
 * The AuthKit domain of a WorkOS environment (WorkOS Connect) as far as the notes on providers describe it: section 5.1,
 * with 3.2 for the tokens, 3.4 for the device flow, 3.5 for rotation, and document 004. Its statuses are not documented: 400
 * as section 3.4 assumes, and RFC 6749 §5.2 for the rest.
 */
export class Workos extends Provider<WorkosSettings> {
  /** What an access token is for unless a resource was asked for: not the application's own id. */
  readonly environmentId = 'client_01ENVIRONMENT0000000000000'
  readonly web = { clientId: 'client_01WEB000000000000000000000', secret: 'workos-web-secret' }
  readonly worker = { clientId: 'client_01WORKER00000000000000000', secret: 'workos-worker-secret' }
  /** A public application, such as a command line. */
  readonly native = { clientId: 'client_01NATIVE000000000000000000' }
  readonly key = createSigningKey('RS256', 'sso_oidc_key_pair_01HKT9B5NNTJSG5QK4GRQSVN1W')

  constructor() {
    super({
      defaults: DEFAULTS,
      user: USER,
      deviceLifetimeMs: 300_000,
      target: 'resource',
      toRefreshSettings: ({ graceMs }) => ({ rotates: true, graceMs, revokesOnReuse: false }),
      words: {
        invalid_client: 'Invalid client.',
        invalid_grant: 'The code is invalid.',
        unsupported_grant_type: 'The grant type is not supported.',
      },
    })
  }

  /** Section 5.1: of the two documents, one lacks the challenge methods and the other may lack the keys. */
  routes(origin: string): Routes {
    // Without a slash (section 3.1).
    this.issuer = origin
    const metadata = {
      issuer: origin,
      authorization_endpoint: `${origin}/oauth2/authorize`,
      token_endpoint: `${origin}/oauth2/token`,
      introspection_endpoint: `${origin}/oauth2/introspection`,
      token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
      grant_types_supported: ['authorization_code', 'refresh_token', 'client_credentials', DEVICE_CODE],
    }
    const openid = {
      ...metadata,
      jwks_uri: `${origin}/oauth2/jwks`,
      userinfo_endpoint: `${origin}/oauth2/userinfo`,
      device_authorization_endpoint: `${origin}/oauth2/device_authorization`,
      id_token_signing_alg_values_supported: ['RS256'],
    }
    const oauth = {
      ...metadata,
      code_challenge_methods_supported: ['S256'],
      client_id_metadata_document_supported: true,
    }
    return {
      // The user has agreed already.
      'GET /oauth2/authorize': ({ query }) => ({
        status: 302,
        body: '',
        headers: { location: this.agree(query).href },
      }),
      'GET /.well-known/openid-configuration': () => ({ status: 200, body: openid }),
      'GET /.well-known/oauth-authorization-server': () => ({ status: 200, body: oauth }),
      'GET /oauth2/jwks': () => ({ status: 200, body: { keys: [this.key.jwk] } }),
      'POST /oauth2/token': (request) => this.#token(request),
      'POST /oauth2/device_authorization': (request) => this.#startDevice(request),
    }
  }

  #token(request: ProviderRequest): ProviderAnswer {
    // Section 5.1: form bodies.
    const parameters = readParameters(request, { json: false })
    if (parameters === undefined) return refuse(400, 'invalid_request', 'The body must be a form.')
    return this.spend(request, parameters)
  }

  /** Section 3.5: each token is for one use, with a grace for repeats; afterwards `invalid_grant` for good. */
  protected refresh(parameters: Parameters, clientId: string): ProviderAnswer {
    if (this.settings.isBusy) {
      return { ...refuse(429, 'too_many_requests', 'Try again.'), headers: { 'retry-after': '1' } }
    }
    const result = this.refreshTokens.spend(parameters.get('refresh_token') ?? '', clientId)
    if (typeof result === 'string') return refuse(400, 'invalid_grant', 'The refresh token is invalid.')
    return this.tokens({ ...result.consent, nonce: undefined }, result.next)
  }

  protected poll(parameters: Parameters, clientId: string): ProviderAnswer {
    const result = this.devices.poll(parameters.get('device_code') ?? '', clientId)
    switch (result) {
      case 'pending':
        return refuse(400, 'authorization_pending', 'The authorization request is still pending.')
      case 'slow_down':
        return refuse(400, 'slow_down', 'The client is polling too frequently.')
      case 'expired':
        return refuse(400, 'expired_token', 'The device code has expired.')
      case 'denied':
        return refuse(400, 'access_denied', 'The authorization request was denied.')
      case 'over':
        return refuse(400, 'invalid_grant', 'The device code is invalid.')
      default:
        return this.first(result)
    }
  }

  /** Section 5.1: the subject is the application, the audience the environment. */
  protected authenticateClient(parameters: Parameters, clientId: string): ProviderAnswer {
    if (clientId !== this.worker.clientId) return refuse(400, 'unauthorized_client', 'Grant not allowed.')
    const scope = parameters.get('scope') ?? ''
    return this.tokens({ clientId, sub: clientId, scope, audience: undefined, nonce: undefined }, undefined)
  }

  /** E18: what comes depends on the scopes that were asked for. */
  protected tokens(consent: Consent, refreshToken: string | undefined): ProviderAnswer {
    const { sub, scope, clientId, nonce, audience } = consent
    const now = Math.floor(Date.now() / 1000)
    const common = { iss: this.issuer, sub, iat: now, exp: now + LIFETIME_SECONDS }
    // Section 5.1: a header without `typ`.
    const sign = (claims: Record<string, unknown>) => signJwt(this.key, { ...common, ...claims }, { typ: undefined })
    const access = { aud: audience ?? this.environmentId, client_id: clientId, scope, jti: randomUUID() }
    const user =
      sub === clientId ? {} : { sid: `app_consent_${randomUUID()}`, org_id: 'org_01EHZNVPK3SFK441A1RGBFSHRT' }
    const body: Record<string, unknown> = { access_token: sign({ ...access, ...user }) }
    if (refreshToken !== undefined) body['refresh_token'] = refreshToken
    if (scope.split(' ').includes('openid')) body['id_token'] = sign({ aud: clientId, nonce })
    return { status: 200, body: { ...body, token_type: 'Bearer', expires_in: LIFETIME_SECONDS } }
  }

  #startDevice(request: ProviderRequest): ProviderAnswer {
    const parameters = readParameters(request, { json: false })
    if (parameters === undefined) return refuse(400, 'invalid_request', 'The body must be a form.')
    const client = [this.web, this.worker, this.native].find(({ clientId }) => clientId === parameters.get('client_id'))
    if (client === undefined) return this.refuseClient()
    const consent = { clientId: client.clientId, scope: parameters.get('scope') ?? '', nonce: undefined }
    const started = this.devices.start({ ...consent, audience: parameters.get('resource') }, `${this.issuer}/device`)
    // The members are those of RFC 8628 §3.2, the figures those of its sibling in section 3.4.
    return { status: 200, body: { ...started, expires_in: 300, interval: 5 } }
  }
}

/** Starts an environment on loopback. */
export async function startWorkos(): Promise<Workos> {
  const workos = new Workos()
  workos.server = await serveProvider((origin) => workos.routes(origin))
  return workos
}
