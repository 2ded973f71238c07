import type { Clock } from '../util/clock.ts'
import { createBearerToken, type BearerToken } from './bearer-token.ts'
import { EgressError, type Egress } from './egress.ts'
import type { KeysSoFar } from './held-keys.ts'
import { createJwksCache, type FetchResult, type IssuerKeys, type JwksStatus } from './jwks-cache.ts'
import { createJwksSource, readJwksFile, type JwksFile } from './jwks-source.ts'
import { JwksError } from './jwks.ts'
import { createMetadataCache } from './metadata-cache.ts'
import { MetadataError, type Metadata } from './metadata.ts'

export interface IssuerOptions {
  /** Name in configuration, logs and metrics. */
  readonly name: string
  /** The exact value of `iss`. */
  readonly issuer: string
  /** Where the keys are: an address, a file, or (with neither) whatever the metadata says. */
  readonly jwksUri: string | undefined
  readonly jwksFile: string | undefined
  /** A file with keys to begin with, when the issuer cannot be reached at start. */
  readonly jwksSeedFile: string | undefined
  /** A file with a bearer token to show when fetching, to the host that the configuration names and no other. */
  readonly jwksBearerTokenFile: string | undefined
  /** Full address of the metadata document, when it is not below the issuer. */
  readonly discoveryUrl: string | undefined
  /** Accepted signature algorithms. */
  readonly algorithms: ReadonlySet<string>
  /** Longest time between scheduled fetches of the keys in milliseconds; 30 s to 24 h. */
  readonly refreshIntervalMs: number
  /** How much longer keys are used while the issuer does not answer, in milliseconds; 0 to 30 days. */
  readonly maxStaleMs: number
  /** Accept addresses without TLS that are not on this machine. */
  readonly insecureHttp: boolean
  /** Keys to begin with, of a view of the same issuer. */
  readonly keysBefore: KeysSoFar | undefined
  readonly egress: Egress
  readonly clock: Clock
  readonly onFetch: (name: string, result: FetchResult) => void
}

/** One authorization server as we know it. */
export interface Issuer {
  readonly name: string
  readonly issuer: string
  readonly keys: IssuerKeys
  /** Its metadata, fetched when first asked for and again after an hour. */
  metadata(): Promise<Metadata>
  start(): void
  close(): void
  status(): JwksStatus
  /** What another view of the same issuer may begin with. */
  keysSoFar(): KeysSoFar | undefined
}

/** Creates the view of one issuer. Nothing is fetched before `start()`. */
export function createIssuer(options: IssuerOptions): Issuer {
  const { name, issuer, algorithms, egress, clock, jwksFile, jwksSeedFile } = options
  const bearerToken = createConfiguredToken(options)
  const metadata = createMetadataCache({ issuer, discoveryUrl: options.discoveryUrl, bearerToken, egress, clock })

  const fetchByAddress = createJwksSource({
    locate: async () => options.jwksUri ?? readJwksUri(await metadata.read(), options.insecureHttp),
    algorithms,
    bearerToken,
    egress,
    clock,
  })
  const readFile = (path: string, setting: JwksFile['setting']) => readJwksFile({ path, setting }, algorithms)
  const fetchFromFile = async (path: string) => ({
    parsed: await readFile(path, 'jwks_file'),
    freshnessMs: undefined,
  })

  const cache = createJwksCache({
    issuerName: name,
    fetch: jwksFile === undefined ? fetchByAddress : () => fetchFromFile(jwksFile),
    readSeed: jwksSeedFile === undefined ? undefined : () => readFile(jwksSeedFile, 'jwks_seed_file'),
    refreshIntervalMs: options.refreshIntervalMs,
    maxStaleMs: options.maxStaleMs,
    before: options.keysBefore,
    clock,
    onFetch: (result) => {
      // The metadata led nowhere: the keys may have moved.
      if (!result.ok) metadata.distrust()
      options.onFetch(name, result)
    },
  })

  return {
    name,
    issuer,
    keys: cache,
    metadata: () => metadata.read(),
    start: () => cache.start(),
    close: () => cache.close(),
    status: () => cache.status(),
    keysSoFar: () => cache.soFar(),
  }
}

function createConfiguredToken(options: IssuerOptions): BearerToken | undefined {
  const { jwksBearerTokenFile: file, jwksUri, discoveryUrl, issuer } = options
  return file === undefined ? undefined : createBearerToken(file, jwksUri ?? discoveryUrl ?? issuer)
}

function readJwksUri(metadata: Metadata, insecureHttp: boolean): string {
  const { jwks_uri: url } = metadata
  if (url === undefined) throw new MetadataError('the metadata has no "jwks_uri"; set jwks_uri in the configuration')
  if (!isSafeUrl(url, insecureHttp)) throw new MetadataError('"jwks_uri" of the metadata is not https')
  return url
}

/** https, or http on this machine, or whatever the operator insists on. */
export function isSafeUrl(url: string, insecureHttp: boolean): boolean {
  const { protocol, hostname } = new URL(url)
  if (protocol === 'https:') return true
  return protocol === 'http:' && (insecureHttp || isLoopback(hostname))
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname)
}

/** A fetch failure in words for the log: the reason, never a body or a URL with a query. */
export function describeFetchError(error: unknown): string {
  if (error instanceof EgressError || error instanceof JwksError || error instanceof MetadataError) return error.message
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : 'unexpected error'
}
