import { readFile } from 'node:fs/promises'
import { JwksError } from './jwks.ts'

/** A token of our own that an issuer wants to see before it shows its keys, as a Kubernetes API server does. */
export interface BearerToken {
  /**
   * The header fields for a request to an address: the token for the host it is meant for, nothing for any other.
   *
   * @throws JwksError when the file cannot be read or holds no token; names the setting, never the value
   */
  headersFor(url: string): Promise<Readonly<Record<string, string>>>
}

/** RFC 6750 §2.1. */
const B64TOKEN = /^[A-Za-z0-9._~+/-]+=*$/

/**
 * Creates the token. Its file is read for every request: a projected service-account token is replaced about every hour.
 *
 * @param audience - any address on the one origin that may see it
 */
export function createBearerToken(file: string, audience: string): BearerToken {
  const { origin } = new URL(audience)
  return {
    async headersFor(url) {
      if (new URL(url).origin !== origin) return {}
      const token = (await readText(file)).trim()
      if (!B64TOKEN.test(token)) throw new JwksError('the file of jwks_bearer_token_file does not hold a bearer token')
      return { authorization: `Bearer ${token}` }
    },
  }
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw new JwksError(`the file of jwks_bearer_token_file cannot be read (${code})`)
  }
}
