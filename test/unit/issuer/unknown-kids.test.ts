import { expect, it } from 'vitest'
import { createUnknownKids } from '../../../src/issuer/unknown-kids.ts'

it('a kid is remembered for half a minute', () => {
  const kids = createUnknownKids()
  kids.add('a', 0)
  expect([kids.has('a', 29_999), kids.has('a', 30_000), kids.has('b', 0)]).toEqual([true, false, false])
})

it('a thousand kids are remembered, the latest', () => {
  const kids = createUnknownKids()
  kids.add('again', 0)
  for (let i = 0; i < 999; i += 1) kids.add(`k${i}`, 0)
  kids.add('again', 0)
  kids.add('one more', 0)
  const known = (kid: string) => kids.has(kid, 1)
  expect(known('k0')).toBe(false)
  expect(['again', 'one more', 'k1', 'k998'].every(known)).toBe(true)
})
