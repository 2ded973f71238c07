import { LRUCache } from 'lru-cache'
import { createDoorkeeper } from './doorkeeper.ts'
import { estimateBytes } from './size.ts'
import type { VerifiedToken } from './verifier.ts'

export type CacheResult = 'hit' | 'miss'

/** Remembers verified tokens by the hash of their text. Failures are never remembered. */
export interface TokenCache {
  get(id: string): VerifiedToken | undefined
  /**
   * Whether a verified token should be remembered: while there is room, any; then only what comes for the second time. Tokens
   * that come once would drive out the others, and cost more to remember than to verify.
   */
  welcomes(id: string): boolean
  /**
   * Remembers a token as it is now: what is added to it later is not counted.
   *
   * @returns the one that is remembered, a copy
   */
  set(id: string, token: VerifiedToken): VerifiedToken
  status(): TokenCacheStatus
}

export interface TokenCacheStatus {
  readonly entries: number
  /** Memory in bytes, as estimated. */
  readonly bytes: number
}

export interface TokenCacheOptions {
  /** How many tokens are kept, the least recently presented ones going first; 0 keeps none. */
  readonly maxEntries: number
  /** How much memory they may take, in bytes. A token that would take all of it alone is not kept. */
  readonly maxBytes: number
}

/** What an entry takes beside its token: its key, its place in the order, the objects around the claims. */
const ENTRY_BYTES = 400

/** The share of its bytes from which on a memory counts as full: how large the next token is, is not known yet. */
const NEARLY_FULL = 0.9

/** Creates the memory. It holds no text of a token, and neither a flood of tokens nor a large one makes it exceed its bounds. */
export function createTokenCache({ maxEntries, maxBytes }: TokenCacheOptions): TokenCache {
  if (maxEntries === 0) {
    return {
      get: () => undefined,
      welcomes: () => false,
      set: (_id, token) => token,
      status: () => ({ entries: 0, bytes: 0 }),
    }
  }
  const cache = new LRUCache<string, VerifiedToken>({ max: maxEntries, maxSize: maxBytes })
  const doorkeeper = createDoorkeeper(maxEntries)
  return {
    get: (id) => cache.get(id),
    welcomes(id) {
      const hasRoom = cache.size < maxEntries && cache.calculatedSize < maxBytes * NEARLY_FULL
      return hasRoom || doorkeeper.hasSeen(id)
    },
    set(id, token) {
      const { claims, scopes, roles, permissions, identity } = token
      const size = ENTRY_BYTES + estimateBytes([claims, scopes, roles, permissions, identity])
      const kept = copy(token)
      cache.set(id, kept, { size })
      return kept
    },
    status: () => ({ entries: cache.size, bytes: cache.calculatedSize }),
  }
}

/**
 * A token of its own to keep. V8 learns by place in the source where objects live long: the first tokens are all kept, so it
 * would put all that are made at the same place later into the old generation at once, where those that are not kept
 * hold on to their claims until the next full collection.
 */
function copy(token: VerifiedToken): VerifiedToken {
  const { scopes, roles, permissions, identity } = token
  return {
    ...token,
    scopes: scopes.slice(),
    roles: roles.slice(),
    permissions: permissions.slice(),
    identity: identity?.slice(),
  }
}
