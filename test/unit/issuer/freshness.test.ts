import { describe, expect, it } from 'vitest'
import { readFreshnessMs } from '../../../src/issuer/freshness.ts'

const now = Date.parse('2026-01-01T00:00:00Z')
const date = 'Thu, 01 Jan 2026 00:00:00 GMT'

describe('a response', () => {
  it.each<[string, Record<string, string>, number | undefined]>([
    ['says nothing', {}, undefined],
    ['says something else', { 'cache-control': 'public, immutable' }, undefined],
    ['has max-age', { 'cache-control': 'public, max-age=3600' }, 3_600_000],
    ['has max-age in capitals and quotes', { 'cache-control': 'Max-Age="60"' }, 60_000],
    ['was in a cache for a while', { 'cache-control': 'max-age=300', age: '100' }, 200_000],
    ['was in a cache for too long', { 'cache-control': 'max-age=300', age: '400' }, 0],
    ['has max-age for shared caches too', { 'cache-control': 's-maxage=9, max-age=60' }, 60_000],
    ['has max-age for shared caches alone', { 'cache-control': 's-maxage=9' }, undefined],
    ['has a max-age that is no number', { 'cache-control': 'max-age=soon' }, 0],
    ['has a negative max-age', { 'cache-control': 'max-age=-1' }, 0],
    ['has an endless max-age', { 'cache-control': 'max-age=99999999999999999999' }, 0],
    ['is not to be stored', { 'cache-control': 'no-store, max-age=60' }, 0],
    ['is to be asked for each time', { 'cache-control': 'no-cache' }, 0],
    ['expires', { date, expires: 'Thu, 01 Jan 2026 00:10:00 GMT' }, 600_000],
    ['expires, by our clock', { expires: 'Thu, 01 Jan 2026 00:10:00 GMT' }, 600_000],
    ['expired', { date, expires: 'Wed, 31 Dec 2025 00:00:00 GMT' }, 0],
    ['expires at 0', { date, expires: '0' }, 0],
    ['has max-age and expires', { 'cache-control': 'max-age=60', date, expires: '0' }, 60_000],
  ])('that %s', (_what, headers, expected) => {
    expect(readFreshnessMs(headers, now)).toBe(expected)
  })
})
