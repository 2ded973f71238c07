import { readFile } from 'node:fs/promises'
import type { Clock } from '../util/clock.ts'
import { EgressError, type Egress } from './egress.ts'
import { createJwksCache, type FetchResult, type IssuerKeys, type JwksStatus } from './jwks-cache.ts'
import { JwksError, readJwks, type ParsedKeys } from './jwks.ts'
import { fetchMetadata, MetadataError, type Metadata } from './metadata.ts'

export interface IssuerOptions {
  /** Name in configuration, logs and metrics. */
  readonly name: string
  /** The exact value of `iss`. */
  readonly issuer: string
  /** Where the keys are: an address, a file, or (with neither) whatever the metadata says. */
  readonly jwksUri: string | undefined
  readonly jwksFile: string | undefined
  /** Full address of the metadata document, when it is not below the issuer. */
  readonly discoveryUrl: string | undefined
  /** Time between scheduled fetches of the keys in milliseconds. */
  readonly refreshIntervalMs: number
  /** Accept addresses without TLS that are not on this machine. */
  readonly insecureHttp: boolean
  readonly egress: Egress
  readonly clock: Clock
  readonly onFetch: (name: string, result: FetchResult) => void
}

/** One authorization server as we know it. */
export interface Issuer {
  readonly name: string
  readonly issuer: string
  readonly keys: IssuerKeys
  /** Its metadata, fetched when first asked for and kept for an hour. */
  metadata(): Promise<Metadata>
  start(): void
  close(): void
  status(): JwksStatus
}

/** From the request to the last byte. */
const FETCH_TIMEOUT_MS = 5_000
const METADATA_TTL_MS = 60 * 60 * 1000

/** Creates the view of one issuer. Nothing is fetched before `start()`. */
export function createIssuer(options: IssuerOptions): Issuer {
  const { name, issuer, egress, clock } = options
  let known: { metadata: Metadata; atMs: number } | undefined

  const metadata = async (): Promise<Metadata> => {
    if (known === undefined || clock.now() - known.atMs > METADATA_TTL_MS) {
      const { discoveryUrl } = options
      known = {
        metadata: await fetchMetadata({ issuer, discoveryUrl, egress, timeoutMs: FETCH_TIMEOUT_MS }),
        atMs: clock.now(),
      }
    }
    return known.metadata
  }

  const fetchKeys = async (): Promise<ParsedKeys> => {
    if (options.jwksFile !== undefined) return readJwks(parse(await readFile(options.jwksFile, 'utf8')))
    const url = options.jwksUri ?? readJwksUri(await metadata(), options.insecureHttp)
    const headers = { accept: 'application/jwk-set+json, application/json' }
    const { status, body } = await egress.send(url, { method: 'GET', headers, timeoutMs: FETCH_TIMEOUT_MS })
    if (status !== 200) throw new JwksError(`the JWK Set address answered ${status}`)
    return readJwks(parse(body))
  }

  const cache = createJwksCache({
    issuerName: name,
    fetch: fetchKeys,
    refreshIntervalMs: options.refreshIntervalMs,
    clock,
    onFetch: (result) => {
      // Metadata that led nowhere is not kept: the keys may have moved.
      if (!result.ok) known = undefined
      options.onFetch(name, result)
    },
  })

  return {
    name,
    issuer,
    keys: cache,
    metadata,
    start: () => cache.start(),
    close: () => cache.close(),
    status: () => cache.status(),
  }
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

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new JwksError('the JWK Set is not JSON')
  }
}

/** A fetch failure in words for the log: the reason, never a body or a URL with a query. */
export function describeFetchError(error: unknown): string {
  if (error instanceof EgressError || error instanceof JwksError || error instanceof MetadataError) return error.message
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : 'unexpected error'
}
