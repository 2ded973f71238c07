import type { KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'

/**
 * Whether the signature of a JWS in compact form is right for a public key. The one place around the primitive.
 *
 * @param alg - the algorithm to verify with, already checked against the issuer's allow-list and the key's type
 * @see RFC 7515 §5.2, RFC 7518 §3
 */
export async function isSignatureValid(token: string, key: KeyObject, alg: string): Promise<boolean> {
  try {
    await compactVerify(token, key, { algorithms: [alg] })
    return true
  } catch {
    // Whatever the library objects to beyond the checks made before, the token is not verified.
    return false
  }
}
