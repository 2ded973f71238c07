import type { BearerToken } from './bearer-token.ts'
import type { Egress } from './egress.ts'

/** Authorization-server metadata, by the names of RFC 8414 §2; only the members used here are checked. */
export interface Metadata {
  readonly issuer: string
  readonly jwks_uri?: string
  readonly token_endpoint?: string
  readonly device_authorization_endpoint?: string
  readonly revocation_endpoint?: string
  /** The same for clients that show a certificate (RFC 8705 §5). */
  readonly mtls_endpoint_aliases?: Readonly<Record<string, string>>
}

/** The metadata cannot be had or cannot be used; the text is for the operator. */
export class MetadataError extends Error {
  override readonly name = 'MetadataError'
}

export interface MetadataOptions {
  /** The exact issuer, which the document must repeat. */
  readonly issuer: string
  /** Full address of the document; by default it is looked for below the issuer. */
  readonly discoveryUrl: string | undefined
  /** Sent along to the host that it is for. */
  readonly bearerToken?: BearerToken | undefined
  readonly egress: Egress
  /** For one document, in milliseconds. */
  readonly timeoutMs: number
}

/**
 * Fetches the metadata of an issuer: OpenID Connect discovery first, then RFC 8414.
 *
 * @throws MetadataError when no document is found, or it names another issuer (RFC 8414 §3.3); EgressError when the issuer
 * does not answer
 */
export async function fetchMetadata(options: MetadataOptions): Promise<Metadata> {
  const urls = options.discoveryUrl === undefined ? wellKnownUrls(options.issuer) : [options.discoveryUrl]
  const statuses: string[] = []
  for (const url of urls) {
    const { status, body } = await options.egress.send(url, {
      method: 'GET',
      headers: { accept: 'application/json', ...(await options.bearerToken?.headersFor(url)) },
      timeoutMs: options.timeoutMs,
    })
    if (status === 200) return readMetadata(body, options.issuer)
    statuses.push(`${new URL(url).pathname} answered ${status}`)
  }
  throw new MetadataError(`no metadata document: ${statuses.join(', ')}`)
}

/**
 * Where an issuer publishes its metadata: appended for OpenID Connect (Discovery 1.0 §4), inserted between host and path
 * for OAuth (RFC 8414 §3.1).
 */
export function wellKnownUrls(issuer: string): string[] {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/$/, '')
  return [
    `${origin}${path}/.well-known/openid-configuration`,
    `${origin}/.well-known/oauth-authorization-server${path}`,
  ]
}

function readMetadata(body: string, issuer: string): Metadata {
  const document = parseObject(body)
  if (document['issuer'] !== issuer) throw new MetadataError(describeMismatch(document['issuer'], issuer))
  for (const member of ['jwks_uri', 'token_endpoint']) {
    const value = document[member]
    if (value !== undefined && !isUrl(value)) throw new MetadataError(`"${member}" of the metadata is not a URL`)
  }
  const { device_authorization_endpoint: device, revocation_endpoint: revocation, ...rest } = document
  return {
    ...rest,
    // Few need these, and who does is told when one is missing.
    ...(isUrl(device) && { device_authorization_endpoint: device }),
    ...(isUrl(revocation) && { revocation_endpoint: revocation }),
    mtls_endpoint_aliases: readAliases(document['mtls_endpoint_aliases']),
  } as unknown as Metadata
}

function isUrl(value: unknown): value is string {
  return typeof value === 'string' && URL.canParse(value)
}

function readAliases(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return {}
  return Object.fromEntries(Object.entries(value).filter(([, one]) => isUrl(one)))
}

function parseObject(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Falls through: the parser's message would quote the body.
  }
  throw new MetadataError('the metadata document is not a JSON object')
}

function describeMismatch(found: unknown, issuer: string): string {
  const text = `the metadata names the issuer ${JSON.stringify(found)}, the configuration ${JSON.stringify(issuer)}`
  const slashOnly = typeof found === 'string' && found.replace(/\/$/, '') === issuer.replace(/\/$/, '')
  return slashOnly ? `${text}: they differ by the slash at the end, which belongs to the name` : text
}
