import { GrantError } from '../errors.ts'
import type { HelperClient } from './clients.ts'
import { askIssuer } from './endpoint.ts'
import { toRefusal } from './token-endpoint.ts'

/**
 * Revokes a token at the issuer. What an answer of success holds is not looked at: Auth0 sends the text OK.
 *
 * @param hint - `refresh_token` or `access_token`; or whatever the caller says
 * @throws GrantError
 * @see RFC 7009 §2
 */
export async function revokeToken(client: HelperClient, token: string, hint: string | undefined): Promise<void> {
  const parameters = new URLSearchParams({ token, ...(hint !== undefined && { token_type_hint: hint }) })
  try {
    const answer = await askIssuer(client, 'revocation_endpoint', parameters)
    if (answer.status !== 200 && answer.status !== 204) throw toRefusal(answer)
  } catch (error) {
    throw error instanceof GrantError ? aboutRevocation(error) : error
  }
}

const DESCRIPTIONS: Readonly<Partial<Record<GrantError['code'], string>>> = {
  issuer_unreachable: 'The identity provider cannot be asked to revoke; the token was not revoked.',
  issuer_busy: 'The identity provider asks to slow down; the token was not revoked.',
  issuer_error: 'The identity provider failed; whether the token was revoked is not known.',
  issuer_timeout: 'The identity provider did not answer; whether the token was revoked is not known.',
  outcome_unknown: 'The identity provider did not answer; whether the token was revoked is not known.',
  credentials_unavailable: 'The client credentials of this server cannot be used; the token was not revoked.',
  client_refused_by_issuer: 'The identity provider refused the client credentials of this server.',
}

/** The same error, which does not speak of a grant. */
function aboutRevocation(error: GrantError): GrantError {
  const { code, status, error: word, members, headers, detail } = error
  const description = DESCRIPTIONS[code] ?? error.description
  return new GrantError(code, { status, error: word, description, members, headers, detail })
}
