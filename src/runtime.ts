import type { Latch } from './admin/health.ts'
import type { createConfiguredHelper } from './clients.ts'
import type { Config } from './config/schema.ts'
import { readUpstreamUrl } from './config/upstream-url.ts'
import { createGate } from './gate/gate.ts'
import { createIdentityEncoder, defaultNames, type IdentityEncoder } from './gate/identity.ts'
import { createRuleMatcher, type Needed, type RuleOptions } from './gate/rules.ts'
import { createSubjects } from './helper/subjects.ts'
import { createTokenReader } from './http/authorization.ts'
import { createCorsFields, METHOD_OVERRIDES } from './http/cors.ts'
import { createTrust } from './http/forwarded.ts'
import { canonicalName, createRequestFieldFilter } from './http/headers.ts'
import {
  createConfiguredDial,
  createPartsUse,
  releaseParts,
  shareCertified,
  shareIssuer,
  shareUpstream,
  shareVerifier,
  type OpenIssuer,
  type ProcessContext,
  type RuntimeParts,
} from './parts.ts'
import { createForward } from './proxy/forward.ts'
import { createTunnels } from './proxy/tunnel.ts'
import { createProxyHandler } from './proxy/handler.ts'
import type { CallerHandler } from './server/caller.ts'
import type { RequestHandler } from './server/listener.ts'
import { createExchangeMemory, keepSpending, shareStore } from './spending.ts'
import type { Expectation } from './token/claims.ts'
import type { AcceptedIssuer } from './token/issuers.ts'
import { createTokenVerifier, type TokenVerifier } from './token/verifier.ts'
import { newRequestId } from './util/request-id.ts'
import type { Shared } from './util/shared.ts'

/** A configuration, and what its rooms are built with. */
export interface RuntimeContext extends ProcessContext {
  readonly config: Config
  /** What `loadHelper` gave for this configuration. */
  readonly createHelper: HelperCreator | undefined
}

export type HelperCreator = typeof createConfiguredHelper

/**
 * Loads what the token helper is made of, libraries included, which takes 40 ms of a start; nothing when no client is
 * configured.
 */
export async function loadHelper({ helper }: Config): Promise<HelperCreator | undefined> {
  if (Object.keys(helper.clients).length === 0) return undefined
  return (await import('./clients.ts')).createConfiguredHelper
}

/** All rooms of one configuration, built bottom-up. Nothing is fetched or opened before `start()`. */
export interface Runtime {
  readonly handleProxy: CallerHandler
  /** Absent unless a client is configured. */
  readonly handleHelper: RequestHandler | undefined
  /** Where the upstream listens; absent for a Unix socket. */
  readonly upstreamAddress: { readonly host: string; readonly port: number } | undefined
  /** What must have happened before traffic is welcome. */
  readonly latches: readonly Latch[]
  readonly parts: RuntimeParts
  /** Begins to fetch the keys that were not taken over. Once. */
  start(): void
  /** Makes its issuers and its memory those that the metrics show. */
  show(): void
  /** No more requests come: ends when none is under way, and closes what no other runtime took over. */
  retire(): Promise<void>
}

/**
 * Builds the rooms of one configuration.
 *
 * @param previous - the parts of the runtime in use, if there is one: what did not change is taken over from them
 * @throws ConfigError when a secret cannot be read
 */
export function createRuntime(context: RuntimeContext, previous?: RuntimeParts): Runtime {
  const { config } = context
  const issuers = config.issuers.map((settings) => createConfiguredIssuer(settings, context, previous))
  const toIdentity = createConfiguredEncoder(config)
  const parts: RuntimeParts = {
    issuers: issuers.map(({ open }) => open),
    upstream: shareUpstream(config, previous),
    verifier: createConfiguredVerifier(context, issuers, toIdentity, previous),
    store: shareStore(context, previous),
    spending: keepSpending(context, previous),
    exchanges: previous?.exchanges ?? createExchangeMemory(context),
    subjects: previous?.subjects ?? createSubjects(),
    certified: shareCertified(config, context, previous),
    secrets: previous?.secrets ?? new Map(),
  }
  try {
    return connectRooms(context, issuers, parts, toIdentity)
  } catch (error) {
    releaseParts(parts)
    throw error
  }
}

function connectRooms(
  context: RuntimeContext,
  issuers: readonly ConfiguredIssuer[],
  parts: RuntimeParts,
  toIdentity: IdentityEncoder,
): Runtime {
  const { config, telemetry } = context
  const verifier = parts.verifier.value
  const use = createPartsUse(parts)
  const tunnels = createTunnels({
    dial: createConfiguredDial(config.upstream),
    responseTimeoutMs: config.upstream.response_timeout,
    enabled: config.websocket.enabled && !readUpstreamUrl(config.upstream.url).isHttp2,
    closeAtTokenExpiry: config.websocket.close_at_token_expiry,
    open: context.tunnels,
    clock: context.clock,
  })
  return {
    handleProxy: createProxyHandler({
      gate: createConfiguredGate(config, verifier, toIdentity),
      forward: createForward({
        upstream: parts.upstream.value,
        tunnels,
        filter: createConfiguredFilter(config),
        totalTimeoutMs: config.upstream.total_timeout,
      }),
      record: telemetry.requestFinished,
      onUnexpected: telemetry.unexpectedError,
      isTrustedPeer: createTrust(config.listen.trusted_proxies),
      newRequestId,
      onInFlight(change) {
        telemetry.inFlightChanged(change)
        use.changed(change)
      },
      corsFields: createCorsFields(config.cors.origins),
      maxInFlight: config.limits.requests_in_flight,
      maxFields: config.limits.header_count,
    }),
    handleHelper: context.createHelper?.(context, issuers, parts),
    upstreamAddress: readOrigin(config.upstream.url),
    latches: issuers.map(({ open }) => ({
      name: `keys of issuer ${open.value.issuer.name}`,
      isOpen: () => open.value.issuer.status().state !== 'empty',
    })),
    parts,
    start() {
      for (const { open } of issuers) if (open.isNew) open.value.issuer.start()
    },
    show() {
      telemetry.watchIssuers(issuers.map(({ open }) => open.value.issuer))
      telemetry.watchTokenCache(verifier.status)
      telemetry.watchStore(parts.store?.value.status)
    },
    retire: use.retire,
  }
}

function readOrigin(url: string): Runtime['upstreamAddress'] {
  const { path, host, port } = readUpstreamUrl(url)
  return path === undefined ? { host, port } : undefined
}

type IssuerSettings = Config['issuers'][number]

interface ConfiguredIssuer {
  readonly settings: IssuerSettings
  readonly open: Shared<OpenIssuer>
  readonly accepted: AcceptedIssuer
}

function createConfiguredIssuer(
  settings: IssuerSettings,
  context: RuntimeContext,
  previous: RuntimeParts | undefined,
): ConfiguredIssuer {
  const open = shareIssuer(settings, context, previous)
  return { settings, open, accepted: { expectation: toExpectation(settings), keys: open.value.issuer.keys } }
}

function createConfiguredVerifier(
  { config, telemetry, clock }: RuntimeContext,
  issuers: readonly ConfiguredIssuer[],
  toIdentity: IdentityEncoder,
  previous: RuntimeParts | undefined,
): Shared<TokenVerifier> {
  const { token_bytes: maxTokenBytes, token_cache_entries: cacheEntries, token_cache_bytes: cacheBytes } = config.limits
  const madeOf = [config.issuers, issuers.map(({ open }) => open.key), config.identity]
  const create = () =>
    createTokenVerifier({
      issuers: issuers.map(({ accepted }) => accepted),
      maxTokenBytes,
      cacheEntries,
      cacheBytes,
      prepare: toIdentity,
      clock,
      onCacheResult: telemetry.tokenPresented,
    })
  return shareVerifier([...madeOf, maxTokenBytes, cacheEntries, cacheBytes], create, previous)
}

function toExpectation(settings: IssuerSettings): Expectation {
  return {
    name: settings.name,
    issuer: settings.issuer,
    aliases: settings.issuer_aliases,
    tenants: settings.insecure_any_tenant ? 'any' : new Set(settings.tenants?.map((tenant) => tenant.toLowerCase())),
    audience: settings.audience,
    kind: settings.token_kind,
    accessTokenClaims: settings.access_token_claims,
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

function createConfiguredGate(config: Config, verifier: TokenVerifier, toIdentity: IdentityEncoder) {
  return createGate({
    target: {
      maxBytes: config.limits.target_bytes,
      allowSemicolon: config.target.insecure_allow_semicolon,
      allowEncodedSlash: config.target.insecure_allow_encoded_slash,
    },
    readToken: createTokenReader(config.credentials.header),
    matchRule: createRuleMatcher(config.rules.map(toRuleOptions), config.target.insecure_literal_paths),
    forwardPreflights: config.cors.preflight === 'forward',
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
  // Otherwise the rules would decide on another method than some backends serve.
  if (rules.some(({ methods }) => methods !== undefined)) names.push(...METHOD_OVERRIDES)
  return createRequestFieldFilter({
    identityPrefix: identity.prefix,
    managedNames: names.map(canonicalName),
    forwardAuthorization: identity.forward_authorization,
  })
}
