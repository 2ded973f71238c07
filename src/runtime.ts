import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Latch } from './admin/health.ts'
import { isLoopback } from './config/check.ts'
import type { Config } from './config/schema.ts'
import { readSecret } from './config/secrets.ts'
import { createGate } from './gate/gate.ts'
import { createIdentityEncoder, defaultNames, type IdentityEncoder } from './gate/identity.ts'
import { createRuleMatcher, type Needed, type RuleOptions } from './gate/rules.ts'
import { createHelperHandler } from './helper/handler.ts'
import { createRefreshSpender, type HelperClient } from './helper/refresh.ts'
import { createTokenReader } from './http/authorization.ts'
import { createTrust } from './http/forwarded.ts'
import { canonicalName, createRequestFieldFilter } from './http/headers.ts'
import { createEgress, type Egress } from './issuer/egress.ts'
import { createIssuer, type Issuer } from './issuer/issuer.ts'
import { readProxy } from './issuer/proxy.ts'
import { createForward } from './proxy/forward.ts'
import { createProxyHandler } from './proxy/handler.ts'
import { createUpstream } from './proxy/upstream.ts'
import type { RequestHandler } from './server/listener.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import type { Expectation } from './token/claims.ts'
import type { AcceptedIssuer } from './token/issuers.ts'
import { createTokenVerifier, type TokenVerifier } from './token/verifier.ts'
import type { Clock } from './util/clock.ts'
import { newRequestId } from './util/request-id.ts'

/** What outlives one configuration and is lent to the rooms. */
export interface RuntimeContext {
  readonly config: Config
  /** For secrets that are in environment variables. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly telemetry: Telemetry
  readonly egress: Egress
  readonly clock: Clock
}

/** All rooms of one configuration, built bottom-up. Nothing is fetched or opened before `start()`. */
export interface Runtime {
  readonly handleProxy: RequestHandler
  /** Absent unless a client is configured. */
  readonly handleHelper: ((request: IncomingMessage, response: ServerResponse) => void) | undefined
  readonly upstreamAddress: { readonly host: string; readonly port: number }
  /** What must have happened before traffic is welcome. */
  readonly latches: readonly Latch[]
  start(): void
  close(): void
}

/** Headers by which some frameworks take a request for one of another method than the rules decided on. */
const METHOD_OVERRIDES = ['x-http-method-override', 'x-http-method', 'x-method-override']

/**
 * Builds the rooms of one configuration.
 *
 * @throws ConfigError when a secret cannot be read
 */
export function createRuntime(context: RuntimeContext): Runtime {
  const { config, telemetry, clock } = context
  const issuers = config.issuers.map((settings) => createConfiguredIssuer(settings, context))
  const accepted = issuers.map(({ accepted }) => accepted)
  const toIdentity = createConfiguredEncoder(config)
  const verifier = createTokenVerifier({
    issuers: accepted,
    maxTokenBytes: config.limits.token_bytes,
    cacheEntries: config.limits.token_cache_entries,
    cacheBytes: config.limits.token_cache_bytes,
    prepare: toIdentity,
    clock,
    onCacheResult: telemetry.tokenPresented,
  })
  const { upstream: upstreamSettings } = config
  const upstreamAddress = readOrigin(upstreamSettings.url)
  const upstream = createUpstream({
    ...upstreamAddress,
    connectTimeoutMs: upstreamSettings.connect_timeout,
    responseTimeoutMs: upstreamSettings.response_timeout,
    idleTimeoutMs: upstreamSettings.idle_timeout,
    connections: upstreamSettings.connections,
  })
  telemetry.watchIssuers(issuers.map(({ issuer }) => issuer))
  telemetry.watchTokenCache(verifier.status)

  return {
    handleProxy: createProxyHandler({
      gate: createConfiguredGate(config, verifier, toIdentity),
      forward: createForward(upstream, createConfiguredFilter(config)),
      record: telemetry.requestFinished,
      onUnexpected: telemetry.unexpectedError,
      isTrustedPeer: createTrust(config.listen.trusted_proxies),
      newRequestId,
      onInFlight: telemetry.inFlightChanged,
    }),
    handleHelper: createConfiguredHelper(context, issuers, verifier),
    upstreamAddress,
    latches: issuers.map(({ issuer }) => ({
      name: `keys of issuer ${issuer.name}`,
      isOpen: () => issuer.status().state !== 'empty',
    })),
    start: () => issuers.forEach(({ issuer }) => issuer.start()),
    close() {
      for (const { issuer } of issuers) issuer.close()
      for (const { egress } of issuers) if (egress !== context.egress) void egress.close()
      upstream.close()
    },
  }
}

/** The address that connections go to. A name is resolved for each connection. */
function readOrigin(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 80 : Number(port) }
}

type IssuerSettings = Config['issuers'][number]

interface ConfiguredIssuer {
  readonly settings: IssuerSettings
  readonly issuer: Issuer
  readonly accepted: AcceptedIssuer
  /** The door of all issuers, or one of its own for an issuer with its own certificate authorities. */
  readonly egress: Egress
}

function createConfiguredIssuer(settings: IssuerSettings, context: RuntimeContext): ConfiguredIssuer {
  const egress = createConfiguredEgress(settings, context)
  const issuer = createIssuer({
    name: settings.name,
    issuer: settings.issuer,
    jwksUri: settings.jwks_uri,
    jwksFile: settings.jwks_file,
    jwksSeedFile: settings.jwks_seed_file,
    jwksBearerTokenFile: settings.jwks_bearer_token_file,
    discoveryUrl: settings.discovery_url,
    algorithms: new Set(settings.algorithms),
    refreshIntervalMs: settings.jwks_refresh_interval,
    maxStaleMs: settings.jwks_max_stale,
    insecureHttp: settings.insecure_http,
    egress,
    clock: context.clock,
    onFetch: context.telemetry.keysFetched,
  })
  const expectation = toExpectation(settings)
  return { settings, issuer, accepted: { expectation, keys: issuer.keys }, egress }
}

function toExpectation(settings: IssuerSettings): Expectation {
  return {
    name: settings.name,
    issuer: settings.issuer,
    aliases: settings.issuer_aliases,
    tenants: settings.insecure_any_tenant ? 'any' : new Set(settings.tenants?.map((tenant) => tenant.toLowerCase())),
    audience: settings.audience,
    kind: settings.token_kind,
    required: settings.required_claims.map(({ claim, any_of: anyOf }) => ({ path: claim, anyOf })),
    forbidden: settings.forbidden_claims,
    maxAgeSeconds: settings.max_token_age === undefined ? undefined : settings.max_token_age / 1000,
    minIat: settings.min_iat,
    roles: settings.roles,
    permissions: settings.permissions,
    algorithms: new Set<string>(settings.algorithms),
    types: new Set(settings.token_types.map((type) => type.toLowerCase().replace(/^application\//, ''))),
    clockToleranceSeconds: settings.clock_tolerance / 1000,
  }
}

function createConfiguredEgress({ ca_file: caFile }: IssuerSettings, { egress, env }: RuntimeContext): Egress {
  return caFile === undefined ? egress : createEgress({ caFile, proxy: readProxy(env) })
}

function createConfiguredGate(config: Config, verifier: TokenVerifier, toIdentity: IdentityEncoder) {
  return createGate({
    target: {
      maxBytes: config.limits.target_bytes,
      allowSemicolon: config.target.insecure_allow_semicolon,
      allowEncodedSlash: config.target.insecure_allow_encoded_slash,
    },
    readToken: createTokenReader(config.credentials.header),
    matchRule: createRuleMatcher(config.rules.map(toRuleOptions), config.target.insecure_literal_paths),
    verifier,
    toIdentity,
  })
}

function createConfiguredEncoder({ identity }: Config): IdentityEncoder {
  return createIdentityEncoder({
    prefix: identity.prefix,
    defaults: identity.default_headers,
    headers: identity.headers.map(({ header, claim, format, on_missing }) => ({
      name: header,
      path: claim,
      format,
      onMissing: on_missing,
    })),
    maxHeaderBytes: identity.max_header_bytes,
    maxTotalBytes: identity.max_total_bytes,
  })
}

function toRuleOptions(rule: Config['rules'][number]): RuleOptions {
  return {
    name: rule.name,
    access: rule.access,
    exact: rule.exact ?? [],
    prefix: rule.prefix ?? [],
    methods: rule.methods,
    allScopes: rule.scopes?.all ?? [],
    anyScope: rule.scopes?.any ?? [],
    claims: (rule.claims ?? []).map(({ claim, any_of }) => ({ path: claim, anyOf: any_of })),
    roles: toNeeded(rule.roles),
    permissions: toNeeded(rule.permissions),
  }
}

function toNeeded(needed: Config['rules'][number]['roles']): Needed | undefined {
  return needed && { all: needed.all ?? [], any: needed.any ?? [] }
}

function createConfiguredFilter({ identity, rules, credentials }: Config) {
  const names = [...defaultNames(identity.prefix), ...identity.headers.map(({ header }) => header), 'x-request-id']
  if (credentials.header !== 'authorization' && !identity.forward_authorization) names.push(credentials.header)
  if (rules.some(({ methods }) => methods !== undefined)) names.push(...METHOD_OVERRIDES)
  return createRequestFieldFilter({
    identityPrefix: identity.prefix,
    managedNames: names.map(canonicalName),
    forwardAuthorization: identity.forward_authorization,
  })
}

function createConfiguredHelper(
  { config, env, telemetry, clock }: RuntimeContext,
  issuers: readonly ConfiguredIssuer[],
  verifier: TokenVerifier,
): Runtime['handleHelper'] {
  const accepted = issuers.map((issuer) => issuer.accepted)
  const clients = Object.entries(config.helper.clients).map(([name, settings]): HelperClient => {
    const known = issuers.find((candidate) => candidate.settings.name === settings.issuer) ?? issuers[0]
    if (known === undefined) throw new TypeError(`helper client ${name} has no issuer`)
    const { client_secret: secret } = settings
    if (secret !== undefined) readSecret(secret, env)
    return {
      name,
      clientId: settings.client_id,
      readSecret: secret === undefined ? undefined : () => readSecret(secret, env),
      authentication: settings.client_authentication,
      issuer: known.issuer,
      accepted: known.accepted,
      tokenEndpoint: settings.token_endpoint,
      insecureHttp: known.settings.insecure_http,
      egress: known.egress,
      timeoutMs: config.helper.timeout,
      validate: { verifier, issuers: accepted, clock },
    }
  })
  if (clients.length === 0) return undefined
  return createHelperHandler({
    clients,
    spendRefreshToken: createRefreshSpender(telemetry.exchangeCoalesced),
    record: telemetry.exchangeFinished,
    onUnexpected: telemetry.unexpectedError,
    newRequestId,
    loopbackOnly: isLoopback(config.listen.helper.host),
  })
}
