import { describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import { createRotation, type RotationMemory } from '../../../src/helper/rotation.ts'

describe('a secret that is rotated', () => {
  function follow(memory: RotationMemory = new Map()) {
    const place = { text: 'one' as string | undefined }
    const readNow = () => {
      if (place.text === undefined) throw new Error('gone')
      return place.text
    }
    return { place, memory, rotation: createRotation(memory, 'web', readNow) }
  }

  it('is read at every use, and the one before is kept behind it until the new one is accepted', () => {
    const { place, rotation } = follow()
    expect(rotation.read()).toEqual(['one'])
    place.text = 'two'
    expect(rotation.read()).toEqual(['two', 'one'])
    rotation.accepted('one')
    expect(rotation.read()).toEqual(['two', 'one'])
    rotation.accepted('two')
    expect(rotation.read()).toEqual(['two'])
  })

  it('twice before the issuer knows: the one it knew is kept', () => {
    const { place, rotation } = follow()
    rotation.read()
    for (const text of ['typo', 'two']) {
      place.text = text
      expect(rotation.read()).toEqual([text, 'one'])
    }
    place.text = 'one'
    expect(rotation.read()).toEqual(['one'])
  })

  it('is known to whoever follows it next', () => {
    const { place, memory, rotation } = follow()
    rotation.read()
    place.text = 'two'
    expect(createRotation(memory, 'web', () => 'two').read()).toEqual(['two', 'one'])
    expect(createRotation(memory, 'other', () => 'two').read()).toEqual(['two'])
  })

  it('is used on while its place cannot be read', () => {
    const { place, rotation } = follow()
    rotation.read()
    place.text = undefined
    expect(rotation.read()).toEqual(['one'])
  })

  it('that never could be read is an error without a spend', () => {
    const rotation = createRotation(new Map(), 'web', () => {
      throw new Error('secret text')
    })
    expect(() => rotation.read()).toThrow(GrantError)
    expect(() => rotation.read()).toThrow(/^credentials_unavailable/)
  })
})
