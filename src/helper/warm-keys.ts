import type { Issuer } from '../issuer/issuer.ts'
import type { AcceptedIssuer } from '../token/issuers.ts'
import { keysUnavailable } from './grant-errors.ts'

/**
 * Makes sure that what the issuer will return can be validated, since by then the grant is gone. Without keys it waits
 * for the fetch that is under way, or begins one, for as long as a request with a token would: at most 5 seconds.
 *
 * @throws GrantError `keys_unavailable`
 */
export async function requireKeys({ issuer, accepted }: { issuer: Issuer; accepted: AcceptedIssuer }): Promise<void> {
  if (hasKeys(issuer)) return
  const [alg = 'RS256'] = accepted.expectation.algorithms
  // Whether there is a key for this very algorithm is of no interest here.
  await Promise.resolve(accepted.keys.find(undefined, alg)).catch(() => undefined)
  if (!hasKeys(issuer)) throw keysUnavailable()
}

function hasKeys(issuer: Issuer): boolean {
  const { state } = issuer.status()
  return state !== 'empty' && state !== 'expired'
}
