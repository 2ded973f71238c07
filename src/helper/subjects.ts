import { hash } from 'node:crypto'
import type { Claims } from '../token/claims.ts'
import { readUnverified } from '../token/jwt.ts'
import { invalidRequest } from './grant-errors.ts'

/** Whom an ID token is about: the digest of `iss` and `sub`, which are one name together (OpenID Connect Core §5.7). */
export type Subject = string

/** The subject of a claims set; not to be asked of one without `sub`. */
export function toSubject({ iss, sub }: Claims): Subject {
  return hash('sha256', JSON.stringify([iss, sub]), 'base64url')
}

/**
 * Reads the parameter `id_token_hint`: an ID token that the caller got before, whose subject the new one must have. It is
 * not verified, since the caller could as well have sent none.
 *
 * @throws GrantError `request_invalid`
 */
export function readHint(hint: string | undefined): Subject | undefined {
  if (hint === undefined) return undefined
  const claims = readUnverified(hint)?.claims
  if (typeof claims?.['iss'] !== 'string' || typeof claims['sub'] !== 'string') {
    throw invalidRequest('id_token_hint must be an ID token.')
  }
  return toSubject(claims)
}

/** Remembers whom refresh tokens are about, so that the tokens they bring can be held against that. */
export interface Subjects {
  remember(client: string, refreshToken: string, subject: Subject): void
  recall(client: string, refreshToken: string): Subject | undefined
}

/** Some 3 MiB. */
const MAX_ENTRIES = 10_000

/** Creates the memory: digests alone, of the last 10,000 refresh tokens that were handed out. */
export function createSubjects(maxEntries = MAX_ENTRIES): Subjects {
  const known = new Map<string, Subject>()
  const toKey = (client: string, refreshToken: string) =>
    hash('sha256', JSON.stringify([client, refreshToken]), 'base64url')
  return {
    remember(client, refreshToken, subject) {
      const key = toKey(client, refreshToken)
      // Deleted first, so that the order of the map stays that of age.
      known.delete(key)
      known.set(key, subject)
      const [oldest] = known.keys()
      if (known.size > maxEntries && oldest !== undefined) known.delete(oldest)
    },
    recall: (client, refreshToken) => known.get(toKey(client, refreshToken)),
  }
}
