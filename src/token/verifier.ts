import { hash } from 'node:crypto'
import { refusal } from '../errors.ts'
import type { VerificationKey } from '../issuer/jwks-cache.ts'
import type { Clock } from '../util/clock.ts'
import { createSingleFlight } from '../util/single-flight.ts'
import { createTokenCache, type CacheResult, type TokenCacheStatus } from './cache.ts'
import { checkTimes, readClientId, readNames, readScopes, type Claims } from './claims.ts'
import { createIssuerIndex, type AcceptedIssuer } from './issuers.ts'
import { verifyJwt, type VerifiedJwt } from './jwt.ts'

/** A token that was found genuine. */
export interface VerifiedToken {
  /** The issuer's name in configuration. */
  readonly issuerName: string
  readonly issuer: AcceptedIssuer
  /** The key that signed it. */
  readonly key: VerificationKey
  readonly claims: Claims
  readonly scopes: readonly string[]
  readonly roles: readonly string[]
  readonly permissions: readonly string[]
  /** The OAuth client it was issued to, if the token says. */
  readonly clientId: string | undefined
  /** The identity header fields once they were written (gate/identity.ts), so that a remembered token brings them along. */
  identity: readonly string[] | undefined
}

export interface TokenVerifier {
  /**
   * Verifies an access token; at once, without a promise, when it was verified before or its signature can be checked now.
   *
   * @throws (or rejects with) Refusal for a token that is not genuine or not valid now; Unavailable when that cannot be told
   */
  verify(token: string): VerifiedToken | Promise<VerifiedToken>
  /** What is remembered at the moment. */
  status(): TokenCacheStatus
}

export interface VerifierOptions {
  readonly issuers: readonly AcceptedIssuer[]
  /** Longest accepted token in bytes. */
  readonly maxTokenBytes: number
  /** How many verified tokens are remembered; 0 for none. */
  readonly cacheEntries: number
  /** How much memory they may take, in bytes. */
  readonly cacheBytes: number
  /**
   * Adds to a new token what a remembered one is to bring along, so that it is counted. When it throws, whoever needs that
   * part has the same error again.
   */
  readonly prepare?: (token: VerifiedToken) => void
  readonly clock: Clock
  /** Called once per token presented. */
  readonly onCacheResult: (result: CacheResult) => void
}

/**
 * Creates the verifier. A remembered token skips parsing and the signature, nothing else: the clock and the key are
 * checked each time it is presented, so it dies with its `exp` and with its key. Requests that bring one new token at the
 * same time share one verification. What is remembered is never used with another configuration.
 */
export function createTokenVerifier(options: VerifierOptions): TokenVerifier {
  const { maxTokenBytes, clock, prepare, onCacheResult } = options
  const issuers = createIssuerIndex(options.issuers)
  const cache = createTokenCache({ maxEntries: options.cacheEntries, maxBytes: options.cacheBytes })
  const share = createSingleFlight<VerifiedToken>()

  const remember = (id: string, { issuer, key, claims }: VerifiedJwt): VerifiedToken => {
    const token: VerifiedToken = {
      issuerName: issuer.expectation.name,
      issuer,
      key,
      claims,
      scopes: readScopes(claims),
      roles: readNames(claims, issuer.expectation.roles),
      permissions: readNames(claims, issuer.expectation.permissions),
      clientId: readClientId(claims),
      identity: undefined,
    }
    if (!cache.welcomes(id)) return token
    try {
      prepare?.(token)
    } catch {
      // Not the token's verification failed but one use of it.
    }
    return cache.set(id, token)
  }

  return {
    verify(text) {
      if (text.length > maxTokenBytes) throw refusal('token_too_large', { bytes: text.length })
      // The whole token, hashed: a shorter key would let two tokens share an entry, and the text itself would keep
      // credentials in memory for longer than the request that brought them.
      const id = hash('sha256', text, 'base64')
      const known = cache.get(id)
      const nowMs = clock.now()
      if (known === undefined || !known.issuer.keys.isCurrent(known.key, nowMs)) {
        onCacheResult('miss')
        return share(id, () => {
          const found = verifyJwt(text, issuers, nowMs)
          return found instanceof Promise ? found.then((late) => remember(id, late)) : remember(id, found)
        })
      }
      onCacheResult('hit')
      checkTimes(known.claims, known.issuer.expectation, nowMs)
      return known
    },

    status: () => cache.status(),
  }
}
