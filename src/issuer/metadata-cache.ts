import type { Clock } from '../util/clock.ts'
import type { BearerToken } from './bearer-token.ts'
import { FETCH_TIMEOUT_MS, type Egress } from './egress.ts'
import { fetchMetadata, type Metadata } from './metadata.ts'

export interface MetadataCacheOptions {
  /** The exact issuer, which the document must repeat. */
  readonly issuer: string
  /** Full address of the document; by default it is looked for below the issuer. */
  readonly discoveryUrl: string | undefined
  readonly bearerToken: BearerToken | undefined
  readonly egress: Egress
  readonly clock: Clock
}

/** The metadata of one issuer, kept between uses. */
export interface MetadataCache {
  /**
   * The metadata, fetched at most once at a time. What is known outlives an issuer that does not answer.
   *
   * @throws MetadataError or EgressError when it cannot be had and never was
   */
  read(): Promise<Metadata>
  /** What is known led nowhere: the next reader fetches it again. */
  distrust(): void
}

const TTL_MS = 60 * 60_000
/** After a fetch that failed, what is known is good for this long: nobody should wait for an issuer that hangs each time. */
const RETRY_MS = 30_000

/** Creates the memory: an hour, unless it is distrusted before. */
export function createMetadataCache(options: MetadataCacheOptions): MetadataCache {
  const { issuer, discoveryUrl, bearerToken, egress, clock } = options
  let known: { readonly metadata: Metadata; readonly untilMs: number } | undefined
  let underWay: Promise<Metadata> | undefined

  const fetch = async (): Promise<Metadata> => {
    try {
      const metadata = await fetchMetadata({ issuer, discoveryUrl, bearerToken, egress, timeoutMs: FETCH_TIMEOUT_MS })
      known = { metadata, untilMs: clock.now() + TTL_MS }
      return metadata
    } catch (error) {
      if (known === undefined) throw error
      known = { metadata: known.metadata, untilMs: clock.now() + RETRY_MS }
      return known.metadata
    }
  }

  return {
    async read() {
      if (known !== undefined && clock.now() < known.untilMs) return known.metadata
      underWay ??= fetch().finally(() => (underWay = undefined))
      return underWay
    },
    distrust() {
      if (known !== undefined) known = { metadata: known.metadata, untilMs: 0 }
    },
  }
}
