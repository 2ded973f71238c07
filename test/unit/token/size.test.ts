import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { estimateBytes } from '../../../src/token/size.ts'

/** Claims of shapes that take much memory for little text; the number makes each one different. */
const SHAPES: Readonly<Record<string, string>> = {
  common: `({ iss: 'https://issuer.test/', aud: 'https://api.test', sub: 'user' + i, exp: 1e9, scope: 'a b c', roles: ['x', 'y'] })`,
  emptyArrays: `({ i, a: Array.from({ length: 3000 }, () => []) })`,
  emptyObjects: `({ i, a: Array.from({ length: 3000 }, () => ({})) })`,
  objectsOfOtherNames: `({ i, a: Array.from({ length: 700 }, (_, k) => ({ ['k' + i + '_' + k]: 1 })) })`,
  manyNames: `Object.fromEntries(Array.from({ length: 1000 }, (_, k) => ['k' + i + '_' + k, 1]))`,
  numbersAsNames: `({ i, a: Array.from({ length: 500 }, (_, k) => ({ [1000000 * (k % 4) + i]: 1 })) })`,
  fractions: `({ i, a: Array.from({ length: 2000 }, (_, k) => (k % 2 ? k + i + 0.5 : 'x')) })`,
  shortTexts: `({ i, a: Array.from({ length: 2000 }, (_, k) => (i * 2000 + k).toString(36)) })`,
  deep: `JSON.parse('{"i":' + i + ',"a":' + '['.repeat(4000) + ']'.repeat(4000) + '}')`,
  beyondLatin: `({ i, a: '\u6f22'.repeat(3000) + i })`,
  longText: `({ i, a: 'x'.repeat(9000) + i })`,
}

/** So many of them that what else happens on the heap does not matter; of those that take much, fewer do. */
const COUNTS: Readonly<Record<string, number>> = { common: 20_000, beyondLatin: 3_000, longText: 3_000 }

describe('the memory of claims', () => {
  // In a process of its own each, where nothing else comes and goes on the heap.
  it.each(Object.entries(SHAPES))('of shape %s is not underestimated', (name, shape) => {
    const script = `
      const count = ${COUNTS[name] ?? 300}
      const make = (i) => JSON.stringify(${shape})
      const texts = Array.from({ length: count }, (_, i) => Buffer.from(make(i)))
      const settle = () => { for (let i = 0; i < 4; i += 1) gc() }
      const kept = new Array(count)
      JSON.parse(texts[0].toString())
      settle()
      const before = process.memoryUsage().heapUsed
      for (let i = 0; i < count; i += 1) kept[i] = JSON.parse(texts[i].toString())
      settle()
      console.log((process.memoryUsage().heapUsed - before) / count, make(count - 1))
    `
    const output = execFileSync(process.execPath, ['--expose-gc', '-e', script], { encoding: 'utf8' })
    const space = output.indexOf(' ')
    const measured = Number(output.slice(0, space))
    const estimated = estimateBytes(JSON.parse(output.slice(space)))
    expect(measured).toBeGreaterThan(0)
    expect(estimated).toBeGreaterThanOrEqual(measured)
    expect(estimated).toBeLessThan(measured * 6 + 1000)
  })

  it('is reckoned without recursion', () => {
    const depth = 200_000
    expect(estimateBytes(JSON.parse('['.repeat(depth) + ']'.repeat(depth)))).toBeGreaterThan(depth * 50)
  })
})
