import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { CodedError, GrantError, Unavailable } from '../errors.ts'
import type { HelperClient } from './clients.ts'
import { invalidRequest, keysUnavailable } from './grant-errors.ts'
import type { TokenRequest } from './request.ts'

/** Who asks for tokens. */
export interface Caller {
  /** Name in logs; `local` where nobody has to say who it is. */
  readonly name: string
}

/** Somebody who may ask for tokens. */
export interface KnownCaller extends Caller {
  /** Names of the clients it may use; absent for all. */
  readonly clients: ReadonlySet<string> | undefined
  /**
   * Whether what a caller shows is what this one would.
   *
   * @throws Unavailable when that cannot be told at the moment
   */
  readonly recognise: (shown: string) => boolean | Promise<boolean>
}

const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i

/**
 * Shuts out browsers: no page may make its reader's machine spend grants. They all send `Origin` with a POST, or at least
 * `Sec-Fetch-Site` (other programs send some of the Sec-Fetch fields, too, but not this one); and a page that pointed its
 * own name at this machine shows it in `Host`.
 *
 * @throws GrantError `origin_refused`
 */
export function refuseBrowsers({ headers }: IncomingMessage, loopbackOnly: boolean): void {
  const isPage = headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
  if (!isPage && (!loopbackOnly || LOOPBACK_HOST.test(headers.host ?? ''))) return
  throw new GrantError('origin_refused', {
    status: 403,
    error: 'access_denied',
    description: 'Browsers are not served here.',
  })
}

/** What a request shows of its caller: a bearer token, or a secret beside a client id, as OAuth libraries send it. */
export interface Shown {
  readonly scheme: 'bearer' | 'basic' | 'body' | 'none'
  /** The readings of what is shown: Basic is form-encoded or not, and nobody says which. */
  readonly secrets: readonly string[]
  /** The client id beside it. */
  readonly clientIds: readonly string[]
}

/**
 * Reads what a request shows.
 *
 * @throws GrantError `request_invalid` for more than one way at a time (RFC 6749 §2.3), and for what cannot be read
 */
export function readShown({ headers, rawHeaders }: IncomingMessage, { parameters }: TokenRequest): Shown {
  if (parameters.has('client_assertion')) throw invalidRequest('Client credentials are added here; send none.')
  const count = rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'authorization').length
  const fromHeader = headers.authorization === undefined ? undefined : readAuthorization(headers.authorization)
  const secret = parameters.get('client_secret')
  if (count > 1 || (fromHeader !== undefined && secret !== undefined)) {
    throw invalidRequest('The request carries more than one set of credentials.')
  }
  if (secret !== undefined) return { scheme: 'body', secrets: [secret], clientIds: [] }
  return fromHeader ?? { scheme: 'none', secrets: [], clientIds: [] }
}

function readAuthorization(field: string): Shown {
  const [, scheme = '', credentials = ''] = /^([A-Za-z]+) +(.+)$/.exec(field) ?? []
  if (scheme.toLowerCase() === 'bearer') return { scheme: 'bearer', secrets: [credentials], clientIds: [] }
  const [, id, secret] = /^([^:]*):([\s\S]*)$/.exec(Buffer.from(credentials, 'base64').toString('utf8')) ?? []
  if (scheme.toLowerCase() !== 'basic' || id === undefined || secret === undefined) {
    throw invalidRequest('Authorization must be Bearer or Basic, with one set of credentials.')
  }
  // Some libraries send the id alone, with nothing behind the colon.
  return { scheme: 'basic', secrets: secret === '' ? [] : readings(secret), clientIds: readings(id) }
}

/** A text as it is, and as it was before form encoding (RFC 6749 §2.3.1). */
function readings(text: string): string[] {
  const decoded = [...new URLSearchParams(`x=${text.replaceAll('&', '%26')}`).values()][0] ?? text
  return decoded === text ? [text] : [text, decoded]
}

/**
 * The request with the client id that is shown beside the secret, if it names one there.
 *
 * @throws GrantError `request_invalid` when it names another one in its body
 */
export function withShownClient(
  request: TokenRequest,
  { clientIds }: Shown,
  clients: readonly HelperClient[],
): TokenRequest {
  const named = request.parameters.get('client_id')
  const [first] = clientIds
  if (first === undefined || first === '') return request
  if (named !== undefined) {
    if (clientIds.includes(named)) return request
    throw invalidRequest('The body and the Authorization header field name different clients.')
  }
  const known = clients.find(({ clientId }) => clientIds.includes(clientId))?.clientId ?? first
  return { ...request, parameters: new Map([...request.parameters, ['client_id', known]]) }
}

/**
 * Finds out who asks. Where no callers are configured everybody who gets here may, and shows no secret.
 *
 * @throws GrantError `caller_unauthenticated`, `keys_unavailable`, `request_invalid`
 */
export async function authenticateCaller(shown: Shown, callers: readonly KnownCaller[]): Promise<Caller | KnownCaller> {
  if (callers.length === 0) {
    // What is shown as a client secret here would be one that belongs elsewhere.
    if (shown.scheme !== 'bearer' && shown.secrets.length > 0) {
      throw invalidRequest('Client credentials are added here; send none.')
    }
    return { name: 'local' }
  }
  const reasons = new Set<string>()
  for (const caller of callers) {
    for (const secret of shown.secrets) {
      try {
        if (await caller.recognise(secret)) return caller
      } catch (error) {
        if (!(error instanceof CodedError)) throw error
        reasons.add(error.code)
        if (error instanceof Unavailable) throw keysUnavailable()
      }
    }
  }
  throw unauthenticated(shown, [...reasons])
}

function unauthenticated({ scheme, secrets }: Shown, reasons: readonly string[]): GrantError {
  return new GrantError('caller_unauthenticated', {
    status: 401,
    error: 'invalid_client',
    description:
      secrets.length === 0
        ? 'This server wants to know who asks: show its shared secret or a service-account token as Authorization: Bearer.'
        : 'The secret or token that the caller shows is not one of a configured caller.',
    // RFC 6749 §5.2: by the scheme that the caller used.
    headers: { 'www-authenticate': scheme === 'basic' ? 'Basic realm="bearward"' : 'Bearer realm="bearward"' },
    detail: { shown: scheme, ...(scheme === 'bearer' && reasons.length > 0 && { reasons }) },
  })
}

/**
 * Whether a caller may use a client.
 *
 * @throws GrantError `caller_not_allowed`
 */
export function requireClient(caller: Caller | KnownCaller, { name }: HelperClient): void {
  if (!('clients' in caller) || caller.clients === undefined || caller.clients.has(name)) return
  throw new GrantError('caller_not_allowed', {
    status: 400,
    error: 'unauthorized_client',
    description: 'The caller may not use this client.',
  })
}

/** Compares texts in a time that does not depend on where they differ. */
export function isSameSecret(one: string, other: string): boolean {
  return timingSafeEqual(hash('sha256', one, 'buffer'), hash('sha256', other, 'buffer'))
}
