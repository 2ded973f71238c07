import {
  authenticate,
  refuse,
  type ProviderAnswer,
  type ProviderClient,
  type ProviderRequest,
  type ProviderServer,
} from './provider-server.ts'
import {
  createCodes,
  createDevices,
  createRefreshTokens,
  readConsent,
  type Consent,
  type RefreshSettings,
} from './provider-state.ts'

export type Parameters = ReadonlyMap<string, string>

export const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code'

/** In what providers differ when they do the same. */
export interface ProviderTraits<Settings> {
  /** How it is at first. */
  readonly defaults: Settings
  /** The `sub` of whoever signs in. */
  readonly user: string
  readonly deviceLifetimeMs: number
  /** The parameter by which an application names an API. */
  readonly target: 'audience' | 'resource'
  readonly toRefreshSettings: (settings: Settings) => RefreshSettings
  /** The `error_description` of each error. */
  readonly words: Readonly<Record<'invalid_client' | 'invalid_grant' | 'unsupported_grant_type', string>>
}

/** A provider with three applications and one user, who agrees to everything; what it answers is for its heirs to say. */
export abstract class Provider<Settings extends object> {
  /** Known once it is served. */
  issuer = ''
  server!: ProviderServer
  abstract readonly web: ProviderClient
  abstract readonly worker: ProviderClient
  /** A public application. */
  abstract readonly native: ProviderClient
  readonly codes = createCodes()
  readonly devices
  readonly refreshTokens
  settings: Settings
  readonly #traits: ProviderTraits<Settings>
  #skewMs = 0

  constructor(traits: ProviderTraits<Settings>) {
    const now = () => this.now()
    this.#traits = traits
    this.settings = traits.defaults
    this.devices = createDevices(traits.deviceLifetimeMs, now)
    this.refreshTokens = createRefreshTokens(() => traits.toRefreshSettings(this.settings), now)
  }

  /** Back to how it was at first, with these changes. */
  configure(changes: Partial<Settings> = {}): void {
    this.settings = { ...this.#traits.defaults, ...changes }
  }

  /** Moves the clock of device codes and of rotated refresh tokens. */
  advance(ms: number): void {
    this.#skewMs += ms
  }

  /** Where the pages of the provider would send the browser, for an authorization URL. */
  signIn(authorizationUrl: string | URL): URL {
    return this.agree(new URL(authorizationUrl).searchParams)
  }

  /** A code, as it comes back to the application that asked for it. */
  issueCode(asked: Readonly<Record<string, string>>): string {
    const all = { response_type: 'code', scope: 'openid profile offline_access', ...asked }
    return this.agree(new URLSearchParams(all)).searchParams.get('code') as string
  }

  approve(userCode: string): void {
    this.devices.approve(userCode, this.#traits.user)
  }

  protected abstract refresh(parameters: Parameters, clientId: string): ProviderAnswer
  protected abstract poll(parameters: Parameters, clientId: string): ProviderAnswer
  protected abstract authenticateClient(parameters: Parameters, clientId: string): ProviderAnswer
  protected abstract tokens(consent: Consent, refreshToken: string | undefined): ProviderAnswer

  protected agree(asked: URLSearchParams): URL {
    const { target, user } = this.#traits
    return this.codes.redirect({ ...readConsent(asked), audience: asked.get(target) ?? undefined, sub: user }, asked)
  }

  protected now(): number {
    return Date.now() + this.#skewMs
  }

  protected authenticate(request: ProviderRequest, parameters: Parameters): ProviderClient | undefined {
    return authenticate(request, parameters, [this.web, this.worker, this.native])
  }

  protected refuseClient(): ProviderAnswer {
    return refuse(401, 'invalid_client', this.#traits.words.invalid_client)
  }

  /** What the token endpoint does with a request that it could read. */
  protected spend(request: ProviderRequest, parameters: Parameters): ProviderAnswer {
    const client = this.authenticate(request, parameters)
    if (client === undefined) return this.refuseClient()
    switch (parameters.get('grant_type') ?? '') {
      case 'authorization_code':
        return this.#spendCode(parameters, client.clientId)
      case 'refresh_token':
        return this.refresh(parameters, client.clientId)
      case DEVICE_CODE:
        return this.poll(parameters, client.clientId)
      case 'client_credentials':
        return this.authenticateClient(parameters, client.clientId)
      default:
        return refuse(400, 'unsupported_grant_type', this.#traits.words.unsupported_grant_type)
    }
  }

  /** The tokens of a user who has just agreed: what comes depends on the scopes that were asked for. */
  protected first(consent: Consent): ProviderAnswer {
    const hasOffline = consent.scope.split(' ').includes('offline_access')
    return this.tokens(consent, hasOffline ? this.refreshTokens.issue(consent) : undefined)
  }

  #spendCode(parameters: Parameters, clientId: string): ProviderAnswer {
    const consent = this.codes.use(parameters, clientId)
    return consent === undefined ? refuse(400, 'invalid_grant', this.#traits.words.invalid_grant) : this.first(consent)
  }
}
