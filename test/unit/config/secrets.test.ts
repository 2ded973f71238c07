import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readSecret } from '../../../src/config/secrets.ts'
import { ConfigError } from '../../../src/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
afterAll(() => rmSync(folder, { recursive: true }))

function write(text: string): string {
  const file = join(folder, 'secret')
  writeFileSync(file, text)
  return file
}

describe('a secret in a file', () => {
  it.each([
    ['a\n', 'a'],
    ['a\r\n', 'a'],
    ['a\n\n', 'a\n'],
    [' a ', ' a '],
  ])('%j is read as %j: one line break at the end is not part of it', (text, value) => {
    expect(readSecret({ file: write(text) }, {})).toBe(value)
  })

  it.each(['', '\n'])('is a problem that names the file when it is empty: %j', (text) => {
    const file = write(text)
    expect(() => readSecret({ file }, {})).toThrow(
      expect.objectContaining({ problems: [expect.objectContaining({ source: file })] }),
    )
  })

  it('is a problem that names the file when it cannot be read', () => {
    const file = join(folder, 'gone')
    expect(() => readSecret({ file }, {})).toThrow(ConfigError)
    expect(() => readSecret({ file }, {})).toThrow(file)
  })

  it('is read anew every time, so that a rotated one is noticed', () => {
    const file = write('old')
    expect(readSecret({ file }, {})).toBe('old')
    write('new')
    expect(readSecret({ file }, {})).toBe('new')
  })
})

describe('a secret in a variable', () => {
  it('is read as it is', () => {
    expect(readSecret({ env: 'SECRET' }, { SECRET: 'a\n' })).toBe('a\n')
  })

  it.each([{}, { SECRET: '' }])('is a problem that names the variable when it is unset or empty: %j', (env) => {
    expect(() => readSecret({ env: 'SECRET' }, env)).toThrow(
      expect.objectContaining({ problems: [expect.objectContaining({ source: 'SECRET' })] }),
    )
  })
})
