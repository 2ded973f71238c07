import { hash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createDoorkeeper } from '../../../src/token/doorkeeper.ts'

const idOf = (n: number) => hash('sha256', `token-${n}`, 'base64')
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i)

describe('the doorkeeper', () => {
  it('knows what came a short while ago', () => {
    const doorkeeper = createDoorkeeper(1_000)
    expect(doorkeeper.hasSeen(idOf(1))).toBe(false)
    expect(doorkeeper.hasSeen(idOf(2))).toBe(false)
    expect(doorkeeper.hasSeen(idOf(1))).toBe(true)
    expect(doorkeeper.hasSeen(idOf(1))).toBe(true)
  })

  it('takes next to nothing for something it has seen that it has not', () => {
    const doorkeeper = createDoorkeeper(1_000)
    expect(numbers(50_000).filter((n) => doorkeeper.hasSeen(idOf(n)))).toEqual([])
  })

  it('knows about as many as it was made for, and forgets the others', () => {
    const doorkeeper = createDoorkeeper(1_024)
    for (const n of numbers(100)) doorkeeper.hasSeen(idOf(n))
    expect(numbers(100).filter((n) => doorkeeper.hasSeen(idOf(n))).length).toBeGreaterThan(80)
    for (const n of numbers(20_000, 100)) doorkeeper.hasSeen(idOf(n))
    expect(numbers(100).filter((n) => doorkeeper.hasSeen(idOf(n)))).toEqual([])
  })

  it('may be as small as one place', () => {
    const doorkeeper = createDoorkeeper(1)
    expect([1, 1, 2, 1].map((n) => doorkeeper.hasSeen(idOf(n)))).toEqual([false, true, false, false])
  })
})
