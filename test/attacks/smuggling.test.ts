import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { arrival, maskId, startTarget, type Target } from '../fakes/attack.ts'
import { CUT, FORWARDED, REFUSED, REFUSED_ALONE, SMUGGLED } from './framing.ts'

/**
 * Request smuggling: bytes in which two parsers see different requests. After each case a good request is served on another
 * connection (see fakes/attack.ts), and nothing but what is expected has come to the backend.
 */
let target: Target

beforeAll(async () => void (target = await startTarget()))
afterAll(() => target.stop())

describe('a request that can be read in two ways', () => {
  it.each(REFUSED)('$what: refused, with all that follows it', async ({ bytes }) => {
    const { statuses, codes, closed, backend } = await target.attack(bytes)
    expect(backend).toEqual([])
    expect(statuses).toHaveLength(1)
    expect([400, 431, 501]).toContain(statuses[0])
    expect(codes).toHaveLength(1)
    expect(closed).toBe(true)
  })

  it.each(REFUSED_ALONE)('$what: refused, and what follows is decided on by itself', async ({ bytes }) => {
    const { statuses, backend } = await target.attack(bytes, { answers: 2 })
    expect(backend).toEqual([])
    expect(statuses).toHaveLength(2)
    expect([400, 501]).toContain(statuses[0])
    expect(statuses[1]).toBe(401)
  })

  it.each(CUT)('$what: cut off, and nothing that follows is a request', async ({ bytes }) => {
    const { statuses, closed, backend } = await target.attack(bytes)
    expect(backend.length).toBeLessThanOrEqual(1)
    expect(backend.join('')).not.toMatch(/\/admin|X-Smuggled/)
    expect(statuses.filter((status) => status < 400)).toEqual([])
    expect(closed).toBe(true)
  })
})

describe('a request that can be read in one way', () => {
  it.each(FORWARDED)('$what: arrives as one, byte for byte', async (sent) => {
    const { line = 'POST /public/a HTTP/1.1', fields, body, chunked } = sent
    const { statuses, backend } = await target.attack(sent.bytes, { answers: 1 })
    expect(backend.map(maskId)).toEqual([arrival(line, fields, body, chunked)])
    expect(statuses).toEqual([200])
  })

  it.each(FORWARDED.filter(({ bytes }) => !bytes.includes('HTTP/1.0')))(
    '$what: ends where the next one begins',
    async ({ bytes }) => {
      const { statuses, backend } = await target.attack(bytes + SMUGGLED, { answers: 2 })
      expect(backend).toHaveLength(1)
      expect(statuses).toEqual([200, 401])
    },
  )
})
