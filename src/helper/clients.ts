import { GrantError } from '../errors.ts'
import type { Egress } from '../issuer/egress.ts'
import type { Issuer } from '../issuer/issuer.ts'
import type { AcceptedIssuer } from '../token/issuers.ts'
import type { TokenVerifier } from '../token/verifier.ts'
import type { Clock } from '../util/clock.ts'
import type { ClientAuthentication } from './client-authentication.ts'
import type { GrantName } from './grants.ts'
import { invalidRequest } from './grant-errors.ts'
import type { RateLimit } from './rate-limit.ts'
import type { TokenRequest } from './request.ts'

/** An endpoint of the issuer, by its name in the metadata (RFC 8414 §2, RFC 8628 §4). */
export type Endpoint = 'token_endpoint' | 'device_authorization_endpoint' | 'revocation_endpoint'

/** What callers may ask for in the name of a client. */
export interface Allowed {
  readonly grants: ReadonlySet<GrantName>
  /** Compared character by character. */
  readonly redirectUris: readonly string[]
  /** Absent where anything may be asked for. */
  readonly scopes: ReadonlySet<string> | undefined
  readonly audiences: ReadonlySet<string> | undefined
  readonly resources: ReadonlySet<string> | undefined
}

/** One OAuth client whose grants the helper spends. */
export interface HelperClient {
  /** Name in configuration, logs and metrics. */
  readonly name: string
  readonly clientId: string
  readonly authentication: ClientAuthentication
  /** Whether it has no credentials of its own (RFC 6749 §2.1). */
  readonly isPublic: boolean
  readonly allowed: Allowed
  /** What may stand in `aud` of an ID token beside the client. */
  readonly trustedAudiences: readonly string[]
  /** Kinds of tokens that are handed out, in lower case. */
  readonly tokenTypes: ReadonlySet<string>
  readonly issuer: Issuer
  /** For the validation of what the issuer returns. */
  readonly accepted: AcceptedIssuer
  /** Where the metadata is overridden. */
  readonly endpoints: Readonly<Partial<Record<Endpoint, string>>>
  readonly insecureHttp: boolean
  readonly egress: Egress
  /** For one request to the issuer, in milliseconds. */
  readonly timeoutMs: number
  /** How long a spent grant is answered again for the same request of the same caller, in milliseconds. */
  readonly replayWindowMs: number
  readonly rateLimit: RateLimit
  readonly validation: Validation
}

/** What the tokens of all clients are validated with. */
export interface Validation {
  readonly verifier: TokenVerifier
  /** All issuers whose access tokens this server accepts. */
  readonly issuers: readonly AcceptedIssuer[]
  readonly clock: Clock
}

/**
 * The client of a request: the caller names it by `client_id`, unless there is only one.
 *
 * @throws GrantError `request_invalid`, `client_unknown`
 */
export function selectClient({ parameters }: TokenRequest, clients: readonly HelperClient[]): HelperClient {
  const clientId = parameters.get('client_id')
  if (clientId === undefined) {
    if (clients.length !== 1) throw invalidRequest('Several clients are configured: name one by client_id.')
    return clients[0] as HelperClient
  }
  const client = clients.find((candidate) => candidate.clientId === clientId)
  if (client !== undefined) return client
  throw new GrantError('client_unknown', {
    status: 400,
    error: 'invalid_client',
    description: 'No client with this client_id is configured here.',
  })
}
