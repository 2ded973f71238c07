import { describe, expect, it } from 'vitest'
import { createTokenCache } from '../../../src/token/cache.ts'
import type { VerifiedToken } from '../../../src/token/verifier.ts'

function token(claims: Record<string, unknown>, identity?: readonly string[]): VerifiedToken {
  const parts = { issuerName: 'main', claims, scopes: [], roles: [], permissions: [], clientId: undefined, identity }
  return parts as unknown as VerifiedToken
}

const MIB = 1024 * 1024

describe('the memory of tokens', () => {
  it('keeps what it is told to, the least recently used going first', () => {
    const cache = createTokenCache({ maxEntries: 2, maxBytes: MIB })
    const [a, b, c] = [token({ n: 1 }), token({ n: 2 }), token({ n: 3 })]
    cache.set('a', a)
    cache.set('b', b)
    cache.get('a')
    cache.set('c', c)
    expect([cache.get('a'), cache.get('b'), cache.get('c')]).toEqual([a, undefined, c])
    expect(cache.status().entries).toBe(2)
  })

  it('never takes more than its bytes, whatever the number of tokens', () => {
    const cache = createTokenCache({ maxEntries: 100_000, maxBytes: MIB })
    let most = 0
    for (let i = 0; i < 20_000; i += 1) {
      cache.set(`token-${i}`, token({ sub: `user-${i}`, text: 'x'.repeat(i % 5_000) }))
      most = Math.max(most, cache.status().bytes)
    }
    expect(most).toBeLessThanOrEqual(MIB)
    expect(most).toBeGreaterThan(MIB * 0.9)
    expect(cache.status().entries).toBeGreaterThan(100)
    expect(cache.get('token-19999')).toBeDefined()
  })

  it('counts the identity header fields too', () => {
    const cache = createTokenCache({ maxEntries: 10, maxBytes: MIB })
    cache.set('a', token({ n: 1 }))
    const { bytes } = cache.status()
    cache.set('a', token({ n: 1 }, ['x-auth-org', 'y'.repeat(10_000)]))
    expect(cache.status().bytes).toBeGreaterThan(bytes + 10_000)
  })

  it('keeps a copy, so that what is added to the token later is neither in it nor uncounted', () => {
    const cache = createTokenCache({ maxEntries: 10, maxBytes: MIB })
    const brought = token({ n: 1 })
    const kept = cache.set('a', brought)
    brought.identity = ['x-auth-org', 'y']
    ;(brought.scopes as string[]).push('admin')
    expect(cache.get('a')).toBe(kept)
    expect(kept).toEqual(token({ n: 1 }))
  })

  it('does not keep a token that would take all of it', () => {
    const cache = createTokenCache({ maxEntries: 10, maxBytes: MIB })
    cache.set('small', token({ n: 1 }))
    cache.set('large', token({ text: 'x'.repeat(MIB) }))
    expect(cache.get('large')).toBeUndefined()
    expect(cache.get('small')).toBeDefined()
  })

  it('welcomes any token while there is room, and then what comes again', () => {
    const cache = createTokenCache({ maxEntries: 2, maxBytes: MIB })
    for (const id of ['token-a', 'token-b']) {
      expect(cache.welcomes(id)).toBe(true)
      cache.set(id, token({}))
    }
    expect(cache.welcomes('token-c')).toBe(false)
    expect(cache.welcomes('token-d')).toBe(false)
    expect(cache.welcomes('token-c')).toBe(true)
  })

  it('is full when its bytes are, too', () => {
    const cache = createTokenCache({ maxEntries: 100_000, maxBytes: MIB })
    let kept = 0
    for (; cache.welcomes(`token-${kept}`); kept += 1) cache.set(`token-${kept}`, token({ text: 'x'.repeat(5_000) }))
    expect(kept).toBeGreaterThan(100)
    expect(cache.status().entries).toBe(kept)
    expect(cache.welcomes(`token-${kept}`)).toBe(true)
  })

  it('may be none at all', () => {
    const cache = createTokenCache({ maxEntries: 0, maxBytes: MIB })
    cache.set('a', token({}))
    expect(cache.get('a')).toBeUndefined()
    expect([cache.welcomes('a'), cache.welcomes('a')]).toEqual([false, false])
    expect(cache.status()).toEqual({ entries: 0, bytes: 0 })
  })
})
