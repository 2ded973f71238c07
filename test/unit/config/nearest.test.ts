import { expect, it } from 'vitest'
import { nearest } from '../../../src/config/nearest.ts'

it.each([
  ['audiance', 'audience'],
  ['Issuer', 'issuer'],
  ['upstraem', 'upstream'],
])('"%s" is near to "%s"', (word, expected) => {
  expect(nearest(word, ['issuer', 'audience', 'upstream'])).toBe(expected)
})

it('a word that is like none has nothing near', () => {
  expect(nearest('colour', ['issuer', 'audience', 'upstream'])).toBeUndefined()
  expect(nearest('issuer', [])).toBeUndefined()
})
