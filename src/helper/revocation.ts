import type { HelperClient } from './clients.ts'
import { askIssuer } from './endpoint.ts'
import { issuerError } from './grant-errors.ts'

/**
 * Takes a token back at the issuer. The answer to that says nothing but whether it was understood: some have a text for
 * a body, and an unknown token is as good as one taken back.
 *
 * @throws GrantError `issuer_error`, and those of `askIssuer`
 * @see RFC 7009 §2.1 and §2.2
 */
export async function revokeToken(client: HelperClient, token: string, hint: string): Promise<void> {
  const { status } = await askIssuer(
    client,
    'revocation_endpoint',
    new URLSearchParams({ token, token_type_hint: hint }),
  )
  if (status !== 200) throw issuerError(status)
}
