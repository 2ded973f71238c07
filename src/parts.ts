import { digestFiles } from './config/files.ts'
import type { Config } from './config/schema.ts'
import { readUpstreamUrl } from './config/upstream-url.ts'
import type { Breaker } from './helper/breaker.ts'
import type { ExchangeMemory } from './helper/exchange.ts'
import type { RotationMemory } from './helper/rotation.ts'
import type { RateLimiter } from './helper/rate-limit.ts'
import type { Spender } from './helper/spend.ts'
import type { Subjects } from './helper/subjects.ts'
import { createEgress, type Egress } from './issuer/egress.ts'
import { createIssuer, type Issuer } from './issuer/issuer.ts'
import type { KeysSoFar } from './issuer/held-keys.ts'
import { readProxy } from './issuer/proxy.ts'
import { createDial, type Dial, type DialTls } from './proxy/dial.ts'
import { createHttp2Upstream } from './proxy/http2-upstream.ts'
import type { OpenTunnels } from './proxy/tunnel.ts'
import { createUpstream, type Upstream } from './proxy/upstream.ts'
import type { Store } from './store/store.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import type { TokenVerifier } from './token/verifier.ts'
import type { Clock } from './util/clock.ts'
import { share, type Shared } from './util/shared.ts'

/** What outlives every configuration and is lent to the rooms. */
export interface ProcessContext {
  /** For secrets that are in environment variables. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly telemetry: Telemetry
  readonly egress: Egress
  /** The WebSockets that are open, whichever runtime opened them. */
  readonly tunnels: OpenTunnels
  readonly clock: Clock
  /** No more requests are accepted. */
  readonly ending: AbortSignal
}

/** What a runtime hands on to the next one, as far as that is configured the same. */
export interface RuntimeParts {
  readonly issuers: readonly Shared<OpenIssuer>[]
  readonly upstream: Shared<Upstream>
  readonly verifier: Shared<TokenVerifier>
  /** Absent when replicas share nothing. */
  readonly store: Shared<Store> | undefined
  /** Always: a refresh token that is being spent must not be spent by the next runtime at the same time. */
  readonly spending: KeptSpending
  /** Always: intervals are kept, and tokens are good, whatever is configured next. */
  readonly exchanges: ExchangeMemory
  /** Always: what the next runtime hands out must be about the same users. */
  readonly subjects: Subjects
  /** The doors of clients that show a certificate, by name of the client. */
  readonly certified: ReadonlyMap<string, Shared<Egress>>
  /** Always: what the secrets of clients were before they were rotated. */
  readonly secrets: RotationMemory
}

/** What knows of the spends of the whole process. */
export interface KeptSpending {
  readonly spender: Spender
  readonly breaker: Breaker
  readonly limiter: RateLimiter
}

/** An issuer with its keys. */
export interface OpenIssuer {
  readonly issuer: Issuer
  /** The door of all issuers, or one of its own for an issuer with its own certificate authorities. */
  readonly egress: Egress
  /** Equal for issuers whose keys come from the same place in the same way. */
  readonly source: string
}

type IssuerSettings = Config['issuers'][number]

/** Equal for equal settings with equal files. */
export function toKey(settings: unknown, files: readonly string[] = []): string {
  return JSON.stringify([settings, ...digestFiles(files)])
}

/**
 * The issuer of these settings with the keys it has, or a new one. That has none yet, unless only how long keys are used has
 * changed: in an outage of the issuer nothing else could be had.
 */
export function shareIssuer(
  settings: IssuerSettings,
  context: ProcessContext,
  previous: RuntimeParts | undefined,
): Shared<OpenIssuer> {
  const { jwks_file: file } = settings
  const keys = keySettings(settings)
  const { jwks_refresh_interval, jwks_max_stale, jwks_seed_file, ...where } = keys
  const files = file === undefined ? [] : [file]
  const source = toKey(where, files)
  const before = previous?.issuers.find(({ value }) => value.source === source)?.value.issuer
  const open = () => openIssuer({ settings, source, keysBefore: before?.keysSoFar() }, context)
  return share(previous?.issuers ?? [], toKey(keys, files), open, closerOf(context))
}

/** The settings that say where keys come from and how long they are used; the others say what a token must satisfy. */
function keySettings(settings: IssuerSettings) {
  const { audience, issuer_aliases, tenants, insecure_any_tenant, token_kind, token_types, ...rest } = settings
  const {
    access_token_claims,
    required_claims,
    forbidden_claims,
    max_token_age,
    min_iat,
    roles,
    permissions,
    clock_tolerance,
    ...keys
  } = rest
  return keys
}

interface IssuerPlan {
  readonly settings: IssuerSettings
  readonly source: string
  readonly keysBefore: KeysSoFar | undefined
}

function openIssuer(
  { settings, source, keysBefore }: IssuerPlan,
  { egress: common, env, telemetry, clock }: ProcessContext,
): OpenIssuer {
  const { ca_file: caFile } = settings
  const egress = caFile === undefined ? common : createEgress({ caFile, proxy: readProxy(env) })
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
    keysBefore,
    egress,
    clock,
    onFetch: telemetry.keysFetched,
  })
  return { issuer, egress, source }
}

/**
 * Twice the longest `helper.timeout`, the longest `helper.validation_wait`, and a revocation: a spend under way does not
 * wait for its caller, and is not counted as a request.
 */
export const LONGEST_SPEND_MS = 480_000

function closerOf({ egress: common, clock }: ProcessContext) {
  return ({ issuer, egress }: OpenIssuer): void => {
    issuer.close()
    if (egress !== common) closeLater(egress, clock)
  }
}

function closeLater(egress: Egress, clock: Clock): void {
  clock.after(LONGEST_SPEND_MS, () => void egress.close())
}

/** A door of its own for each client that shows a certificate: nobody else's requests may travel on its connections. */
export function shareCertified(
  { helper, issuers }: Config,
  { env, clock }: ProcessContext,
  previous: RuntimeParts | undefined,
): ReadonlyMap<string, Shared<Egress>> {
  const clients = Object.entries(helper.clients).filter(([, client]) => client.certificate_file !== undefined)
  return new Map(
    clients.map(([name, { issuer: named, certificate_file: certificateFile, key_file: keyFile }]) => {
      const caFile = (issuers.find((issuer) => issuer.name === named) ?? issuers[0])?.ca_file
      const options = { caFile, certificateFile, keyFile }
      const create = () => createEgress({ ...options, proxy: readProxy(env) })
      // Files are not compared: they are read for every request.
      const known = previous?.certified.get(name)
      return [name, share(known === undefined ? [] : [known], toKey(options), create, (one) => closeLater(one, clock))]
    }),
  )
}

/** The connections to the upstream, or a new pool of them. Files are not compared: each new connection reads them. */
export function shareUpstream(config: Config, previous: RuntimeParts | undefined): Shared<Upstream> {
  const key = toKey([config.upstream, config.limits.body_timeout])
  const create = () => createConfiguredUpstream(config)
  return share(previous === undefined ? [] : [previous.upstream], key, create, (upstream) => upstream.close())
}

function createConfiguredUpstream({ upstream: settings, limits }: Config): Upstream {
  const create = readUpstreamUrl(settings.url).isHttp2 ? createHttp2Upstream : createUpstream
  return create({
    dial: createConfiguredDial(settings),
    connectTimeoutMs: settings.connect_timeout,
    responseTimeoutMs: settings.response_timeout,
    idleTimeoutMs: settings.idle_timeout,
    bodyTimeoutMs: limits.body_timeout,
    connections: settings.connections,
  })
}

/** A host name is resolved for each connection. */
export function createConfiguredDial(settings: Config['upstream']): Dial {
  const { path, host, port, isTls, isHttp2 } = readUpstreamUrl(settings.url)
  if (path !== undefined) return createDial({ path }, undefined)
  if (!isTls) return createDial({ host, port }, undefined)
  const tls: DialTls = {
    serverName: settings.server_name ?? host,
    caFile: settings.ca_file,
    certificateFile: settings.certificate_file,
    keyFile: settings.key_file,
    protocol: isHttp2 ? 'h2' : 'http/1.1',
  }
  return createDial({ host, port }, tls)
}

/** The verifier with the tokens it remembers: it goes when anything changes that its memory was made of. */
export function shareVerifier(
  madeOf: unknown,
  create: () => TokenVerifier,
  previous: RuntimeParts | undefined,
): Shared<TokenVerifier> {
  return share(previous === undefined ? [] : [previous.verifier], toKey(madeOf), create, () => undefined)
}

/** Who uses the parts of a runtime. */
export interface PartsUse {
  /** A request came or went. */
  changed(change: 1 | -1): void
  /**
   * No more requests come. As soon as none is under way, lets go of the parts, so that those are closed which no other
   * runtime took over; then resolves.
   */
  retire(): Promise<void>
}

export function createPartsUse(parts: RuntimeParts): PartsUse {
  const retired = Promise.withResolvers<void>()
  let inFlight = 0
  let isRetired = false
  const release = () => {
    releaseParts(parts)
    retired.resolve()
  }
  return {
    changed(change) {
      inFlight += change
      if (isRetired && inFlight === 0) release()
    },
    retire() {
      isRetired = true
      if (inFlight === 0) release()
      return retired.promise
    },
  }
}

/** Lets go of all parts at once. */
export function releaseParts({ issuers, upstream, verifier, certified, store }: RuntimeParts): void {
  for (const part of [...issuers, upstream, verifier, ...certified.values()]) part.release()
  store?.release()
}
