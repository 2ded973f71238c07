import { LRUCache } from 'lru-cache'
import type { VerifiedToken } from './verifier.ts'

export type CacheResult = 'hit' | 'miss'

/** Remembers verified tokens by the hash of their text. Failures are never remembered. */
export interface TokenCache {
  get(id: string): VerifiedToken | undefined
  set(id: string, token: VerifiedToken): void
}

/** @param entries - how many tokens are kept, the least recently presented ones going first; 0 keeps none */
export function createTokenCache(entries: number): TokenCache {
  if (entries === 0) return { get: () => undefined, set: () => undefined }
  const cache = new LRUCache<string, VerifiedToken>({ max: entries })
  return { get: (id) => cache.get(id), set: (id, token) => void cache.set(id, token) }
}
