import { CODES, type Code } from '../errors.ts'

/** Names the protection space (RFC 9110 §11.5). Every bearward speaks for the API behind it, so one name is enough. */
const REALM = 'api'

/**
 * The `WWW-Authenticate` value for a refusal, or `undefined` for a code that calls for no credentials.
 *
 * @param scope - the scopes the rule asks for, space-delimited; sent with `insufficient_scope` only
 * @see RFC 6750 §3 and §3.1: a request without credentials gets a bare challenge, without an error code
 */
export function toBearerChallenge(code: Code, scope?: string): string | undefined {
  const { status, error, description } = CODES[code]
  if (error === undefined) return status === 401 ? `Bearer realm="${REALM}"` : undefined
  const parts = [`realm="${REALM}"`, `error="${error}"`, `error_description="${description.replaceAll('"', "'")}"`]
  if (error === 'insufficient_scope' && scope !== undefined && scope !== '') parts.push(`scope="${scope}"`)
  return `Bearer ${parts.join(', ')}`
}
