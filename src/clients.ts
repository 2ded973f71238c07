import { isLoopback } from './config/hosts.ts'
import type { Config } from './config/schema.ts'
import { createConfiguredCallers } from './callers.ts'
import { createSpending } from './client-spending.ts'
import type { SecretReference } from './config/fields.ts'
import { readSecret } from './config/secrets.ts'
import { ConfigError, GrantError } from './errors.ts'
import {
  createClientAuthentication,
  importSigningKey,
  type ClientAuthentication,
  type ClientAuthenticationOptions,
} from './helper/client-authentication.ts'
import type { HelperClient, Validation } from './helper/clients.ts'
import { createHelperHandler } from './helper/handler.ts'
import { createRelease } from './helper/release.ts'
import { revokeToken } from './helper/revocation.ts'
import { createRotation } from './helper/rotation.ts'
import type { Egress } from './issuer/egress.ts'
import type { OpenIssuer, ProcessContext, RuntimeParts } from './parts.ts'
import type { RequestHandler } from './server/listener.ts'
import type { AcceptedIssuer } from './token/issuers.ts'
import { newRequestId } from './util/request-id.ts'
import type { Shared } from './util/shared.ts'

/** An issuer of the configuration that clients belong to. */
export interface ClientIssuer {
  readonly settings: Config['issuers'][number]
  readonly open: Shared<OpenIssuer>
  readonly accepted: AcceptedIssuer
}

type ClientSettings = Config['helper']['clients'][string]

/**
 * Builds the token helper of one configuration; nothing when no client is configured.
 *
 * @throws ConfigError when a secret cannot be read
 */
export function createConfiguredHelper(
  context: ProcessContext & { readonly config: Config },
  issuers: readonly ClientIssuer[],
  parts: RuntimeParts,
): RequestHandler | undefined {
  const { config, telemetry, clock } = context
  const validation = { verifier: parts.verifier.value, issuers: issuers.map(({ accepted }) => accepted), clock }
  const clients = Object.entries(config.helper.clients).map(([name, settings]) => {
    const issuer = issuers.find((candidate) => candidate.settings.name === settings.issuer) ?? issuers[0]
    if (issuer === undefined) throw new TypeError(`helper client ${name} has no issuer`)
    const authentication = createAuthentication(name, settings, { context, issuer, parts })
    const timeoutMs = config.helper.timeout
    const egress = parts.certified.get(name)?.value ?? issuer.open.value.egress
    return toClient({ name, settings, issuer, egress, authentication, validation, timeoutMs })
  })
  if (clients.length === 0) return undefined
  return createHelperHandler({
    clients,
    callers: createConfiguredCallers(context, issuers),
    authMethods: authMethodsOf(config),
    ...parts.exchanges,
    ending: context.ending,
    spending: createSpending(context, parts),
    release: createRelease({
      subjects: parts.subjects,
      waitMs: config.helper.validation_wait,
      clock,
      revoke: (client, refreshToken) => revokeToken(client, refreshToken, 'refresh_token'),
      onValidated: telemetry.answerValidated,
      onRevoked: telemetry.refusedTokenRevoked,
    }),
    record: telemetry.exchangeFinished,
    onUnexpected: telemetry.unexpectedError,
    newRequestId,
    // No page reaches a Unix socket.
    loopbackOnly: 'host' in config.listen.helper && isLoopback(config.listen.helper.host),
  })
}

/** A secret in the place of the client's is one that libraries know how to send; anything else they are not asked for. */
function authMethodsOf({ helper }: Config): readonly string[] {
  const shared = Object.values(helper.callers).some(({ shared_secret: secret }) => secret !== undefined)
  return shared ? ['client_secret_basic', 'client_secret_post'] : ['none']
}

interface ClientParts {
  readonly name: string
  readonly settings: ClientSettings
  readonly issuer: ClientIssuer
  readonly egress: Egress
  readonly authentication: ClientAuthentication
  readonly validation: Validation
  readonly timeoutMs: number
}

function toClient(parts: ClientParts): HelperClient {
  const { name, settings, issuer, egress, authentication, validation, timeoutMs } = parts
  const toSet = <T extends string>(values: readonly T[] | undefined) => values && new Set(values)
  const { token_endpoint, device_authorization_endpoint, revocation_endpoint } = settings
  const endpoints = { token_endpoint, device_authorization_endpoint, revocation_endpoint }
  return {
    name,
    clientId: settings.client_id,
    authentication,
    isPublic: settings.client_authentication === 'none',
    allowed: {
      grants: new Set(settings.grants),
      redirectUris: settings.redirect_uris,
      scopes: toSet(settings.scopes),
      audiences: toSet(settings.audiences),
      resources: toSet(settings.resources),
    },
    trustedAudiences: settings.trusted_audiences,
    tokenTypes: new Set(settings.token_types.map((type) => type.toLowerCase())),
    issuer: issuer.open.value.issuer,
    accepted: issuer.accepted,
    endpoints: Object.fromEntries(Object.entries(endpoints).filter(([, url]) => url !== undefined)),
    insecureHttp: issuer.settings.insecure_http,
    egress,
    timeoutMs,
    replayWindowMs: settings.replay_window,
    rateLimit: { perSecond: settings.rate_limit.per_second, burst: settings.rate_limit.burst },
    validation,
  }
}

interface Surroundings {
  readonly context: ProcessContext
  readonly issuer: ClientIssuer
  readonly parts: RuntimeParts
}

function createAuthentication(
  name: string,
  settings: ClientSettings,
  surroundings: Surroundings,
): ClientAuthentication {
  const { context, issuer, parts } = surroundings
  const { client_authentication: method, client_secret: secret, key_file: keyFile } = settings
  const rotate = (reference: SecretReference | undefined, check: (text: string) => void = () => undefined) => {
    if (reference === undefined) throw new TypeError(`helper client ${name} has no ${method}`)
    const read = () => {
      const text = readSecret(reference, context.env)
      check(text)
      return text
    }
    read()
    const rotation = createRotation(parts.secrets, `${name} ${method}`, read)
    // What is in place now is remembered, in case it is replaced before it is used.
    rotation.read()
    return rotation
  }
  const options = (): ClientAuthenticationOptions => {
    switch (method) {
      case 'none':
      case 'tls_client_auth':
        return { method }
      case 'client_secret_post':
        return { method, secret: rotate(secret) }
      case 'client_secret_basic':
        return { method, secret: rotate(secret), encoding: settings.secret_encoding ?? 'form' }
      case 'private_key_jwt':
        return {
          method,
          key: rotate(keyFile === undefined ? undefined : { file: keyFile }, (text) => checkKey(text, settings)),
          keyId: settings.key_id,
          algorithm: settings.key_algorithm,
          audience: settings.assertion_audience ?? defaultAudience(issuer.settings.preset),
        }
    }
  }
  return createClientAuthentication(options())
}

/** @throws ConfigError for what is no private key for the algorithm */
function checkKey(text: string, { key_file: source = '', key_algorithm: algorithm }: ClientSettings): void {
  try {
    importSigningKey(text, algorithm)
  } catch (error) {
    if (!(error instanceof GrantError)) throw error
    throw new ConfigError([{ source, path: '', problem: `${String(error.detail?.['reason'])}.` }])
  }
}

/** The issuer identifier (RFC 7523bis), but for providers that insist on something else. */
function defaultAudience(preset: string): string {
  return preset === 'okta' ? 'token_endpoint' : 'issuer'
}
