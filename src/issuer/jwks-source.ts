import { open } from 'node:fs/promises'
import type { Clock } from '../util/clock.ts'
import type { BearerToken } from './bearer-token.ts'
import { type Egress, FETCH_TIMEOUT_MS, MAX_RESPONSE_BYTES } from './egress.ts'
import { readFreshnessMs } from './freshness.ts'
import type { FetchedKeys } from './jwks-cache.ts'
import { JwksError, parseJwks, type ParsedKeys } from './jwks.ts'

export interface JwksSourceOptions {
  /** Where the JWK Set is at the moment. */
  readonly locate: () => Promise<string>
  /** The algorithms that tokens of the issuer may use. */
  readonly algorithms: ReadonlySet<string>
  /** Sent along to the host that it is for. */
  readonly bearerToken: BearerToken | undefined
  readonly egress: Egress
  readonly clock: Clock
}

/** An entity tag as RFC 9110 §8.8.3 writes it; anything else is not sent back. */
const ENTITY_TAG = /^(?:W\/)?"[\x21\x23-\x7e]*"$/

/**
 * Creates the function that fetches a JWK Set from its address.
 *
 * Its `conditional` says whether the issuer may answer 304 for the set it sent before (RFC 9110 §13.1.2). It throws
 * EgressError when there is no answer, JwksError when the answer is no set that can be used, and whatever `locate` throws.
 */
export function createJwksSource(options: JwksSourceOptions): (conditional: boolean) => Promise<FetchedKeys> {
  const { algorithms, bearerToken, egress, clock } = options
  let last: { readonly url: string; readonly tag: string; readonly parsed: ParsedKeys } | undefined

  return async (conditional) => {
    const url = await options.locate()
    const known = conditional && last?.url === url ? last : undefined
    const { status, headers, body } = await egress.send(url, {
      method: 'GET',
      headers: {
        accept: 'application/jwk-set+json, application/json',
        ...(known && { 'if-none-match': known.tag }),
        ...(await bearerToken?.headersFor(url)),
      },
      timeoutMs: FETCH_TIMEOUT_MS,
    })
    const freshnessMs = readFreshnessMs(headers, clock.now())
    if (status === 304 && known !== undefined) return { parsed: known.parsed, freshnessMs }
    if (status !== 200) throw new JwksError(describeStatus(status, bearerToken !== undefined))
    const parsed = parseJwks(body, algorithms)
    const tag = headers['etag']
    last = tag !== undefined && ENTITY_TAG.test(tag) ? { url, tag, parsed } : undefined
    return { parsed, freshnessMs }
  }
}

function describeStatus(status: number, hasToken: boolean): string {
  const text = `the address of the keys answered ${status}`
  if (status >= 300 && status < 400) return `${text}; redirects are not followed, so name the final address in jwks_uri`
  if (status !== 401 && status !== 403) return text
  return hasToken ? `${text} in spite of jwks_bearer_token_file` : `${text}; it may need jwks_bearer_token_file`
}

/** A file that holds a JWK Set. */
export interface JwksFile {
  readonly path: string
  /** The setting that names it. */
  readonly setting: 'jwks_file' | 'jwks_seed_file'
}

/**
 * Reads a JWK Set from a file of at most 1 MiB.
 *
 * @throws JwksError when it cannot be read, is too large, or is no set that can be used
 */
export async function readJwksFile({ path, setting }: JwksFile, algorithms: ReadonlySet<string>): Promise<ParsedKeys> {
  try {
    return parseJwks(await readStart(path), algorithms)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw new JwksError(`${setting}: ${error instanceof JwksError ? error.message : `it cannot be read (${code})`}`)
  }
}

/** Never reads past the limit, whatever kind of file it is. */
async function readStart(path: string): Promise<string> {
  const handle = await open(path)
  try {
    const bytes = Buffer.alloc(MAX_RESPONSE_BYTES + 1)
    let length = 0
    for (let read = -1; read !== 0 && length < bytes.length; length += read) {
      read = (await handle.read(bytes, length, bytes.length - length)).bytesRead
    }
    if (length > MAX_RESPONSE_BYTES) throw new JwksError('it is larger than 1 MiB')
    return bytes.toString('utf8', 0, length)
  } finally {
    await handle.close()
  }
}
