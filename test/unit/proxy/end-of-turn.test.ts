import { describe, expect, it } from 'vitest'
import { atEndOfTurn } from '../../../src/proxy/end-of-turn.ts'

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

describe('at the end of a turn', () => {
  it('what was put off runs once, in order', async () => {
    const ran: number[] = []
    for (let i = 0; i < 3; i += 1) atEndOfTurn(() => ran.push(i))
    await Promise.resolve()
    expect(ran).toEqual([])
    await nextTurn()
    expect(ran).toEqual([0, 1, 2])
    await nextTurn()
    expect(ran).toEqual([0, 1, 2])
  })

  it('nothing waits for more than 31 others', async () => {
    const ran: number[] = []
    for (let i = 0; i < 40; i += 1) atEndOfTurn(() => ran.push(i))
    expect(ran).toHaveLength(32)
    await nextTurn()
    expect(ran).toEqual(Array.from({ length: 40 }, (_, i) => i))
  })

  it('what is put off by something that runs has its turn, too', async () => {
    const ran: string[] = []
    atEndOfTurn(() => {
      ran.push('first')
      atEndOfTurn(() => ran.push('second'))
    })
    await nextTurn()
    await nextTurn()
    expect(ran).toEqual(['first', 'second'])
  })
})
