import type { HelperClient } from './clients.ts'
import { GRANT_TYPES } from './grants.ts'
import { invalidRequest } from './grant-errors.ts'

type Body = Readonly<Record<string, unknown>>

/** Members of the issuer's metadata that are as true of the helper: what users and their browsers do is done there. */
const KEPT = [
  'authorization_endpoint',
  'authorization_response_iss_parameter_supported',
  'claims_supported',
  'code_challenge_methods_supported',
  'end_session_endpoint',
  'id_token_signing_alg_values_supported',
  'jwks_uri',
  'response_modes_supported',
  'response_types_supported',
  'scopes_supported',
  'subject_types_supported',
  'userinfo_endpoint',
] as const

export interface MetadataOptions {
  readonly clients: readonly HelperClient[]
  /** Where the caller found the helper, such as `http://127.0.0.1:8181`. */
  readonly base: string
  /** Name of the issuer, from the path; absent for the only one. */
  readonly issuerName: string | undefined
  /** How callers may authenticate (RFC 8414 §2). */
  readonly authMethods: readonly string[]
}

/**
 * Describes the helper as an authorization server: the issuer's own metadata with the endpoints of the helper in it. `issuer`
 * stays the issuer's, because that is what ID tokens and authorization responses say, and libraries compare; a library must
 * therefore be given the address of the document, not the helper as an issuer.
 *
 * @throws GrantError `request_invalid` (404) when it is not clear which issuer is meant
 * @see RFC 8414 §2
 */
export async function describeHelper(options: MetadataOptions): Promise<Body> {
  const clients = findClients(options)
  const { issuer } = clients[0] as HelperClient
  const known: Body = await issuer.metadata().then(
    (metadata): Body => ({ ...metadata }),
    // Without it, what is served here can be told all the same.
    (): Body => ({}),
  )
  const names = new Set(clients.flatMap(({ allowed }) => [...allowed.grants]))
  if (clients.every(({ allowed }) => allowed.redirectUris.length === 0)) names.delete('authorization_code')
  const has = (endpoint: 'device_authorization_endpoint' | 'revocation_endpoint') =>
    known[endpoint] !== undefined || clients.some(({ endpoints }) => endpoints[endpoint] !== undefined)
  return {
    ...Object.fromEntries(KEPT.flatMap((name) => (known[name] === undefined ? [] : [[name, known[name]]]))),
    issuer: issuer.issuer,
    token_endpoint: `${options.base}/oauth2/token`,
    ...(has('device_authorization_endpoint') &&
      names.has('device_code') && {
        device_authorization_endpoint: `${options.base}/oauth2/device_authorization`,
      }),
    ...(has('revocation_endpoint') && { revocation_endpoint: `${options.base}/oauth2/revoke` }),
    response_types_supported: known['response_types_supported'] ?? ['code'],
    grant_types_supported: Object.entries(GRANT_TYPES).flatMap(([type, name]) => (names.has(name) ? [type] : [])),
    token_endpoint_auth_methods_supported: options.authMethods,
    revocation_endpoint_auth_methods_supported: options.authMethods,
  }
}

function findClients({ clients, issuerName }: MetadataOptions): readonly HelperClient[] {
  const names = [...new Set(clients.map(({ issuer }) => issuer.name))]
  const name = issuerName ?? (names.length === 1 ? names[0] : undefined)
  const found = clients.filter(({ issuer }) => issuer.name === name)
  if (found.length > 0) return found
  const known = names.map((one) => `/.well-known/oauth-authorization-server/${one}`).join(', ')
  throw invalidRequest(`There is one such document for each issuer: ${known}.`, 404)
}
