import { beforeEach, describe, expect, it } from 'vitest'
import { share, type Shared } from '../../../src/util/shared.ts'

let closed: string[]
let made: number

beforeEach(() => {
  closed = []
  made = 0
})

const take = (key: string, ...candidates: Shared<string>[]) =>
  share(
    candidates,
    key,
    () => `${key}${(made += 1)}`,
    (value) => closed.push(value),
  )

describe('something shared', () => {
  it('is built once for equal keys and closed with its last owner', () => {
    const first = take('a')
    const second = take('a', take('b'), first)
    expect([first.value, second.value, first.isNew, second.isNew]).toEqual(['a1', 'a1', true, false])
    first.release()
    expect(closed).toEqual([])
    second.release()
    expect(closed).toEqual(['a1'])
  })

  it('is built anew for another key, and when nobody holds it', () => {
    const first = take('a')
    const second = take('b', first)
    expect([second.value, second.isNew]).toEqual(['b2', true])
    first.release()
    second.release()
    expect(closed).toEqual(['a1', 'b2'])
  })

  it('survives an owner in the middle of a chain', () => {
    const first = take('a')
    const second = take('a', first)
    second.release()
    const third = take('a', first)
    first.release()
    expect(closed).toEqual([])
    third.release()
    expect(closed).toEqual(['a1'])
  })

  it('is released once by each owner, however often it says so', () => {
    const first = take('a')
    const second = take('a', first)
    first.release()
    first.release()
    expect(closed).toEqual([])
    second.release()
    expect(closed).toEqual(['a1'])
  })
})
