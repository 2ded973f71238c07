import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError, type Problem } from '../../src/errors.ts'

/**
 * Golden files: above the line a configuration with the fault that the file is named after, below it every problem as
 * `# LINE PATH: SENTENCE`; line 0 and the path `-` stand for the file as a whole.
 */
const CASES = join(import.meta.dirname, 'cases')
const MARK = '\n# ---- expected\n'

interface Expected {
  readonly line: number
  readonly path: string
  readonly sentence: string
}

function readExpected(file: string): Expected[] {
  const [, below] = readFileSync(file, 'utf8').split(MARK)
  const lines = (below ?? '').split('\n').filter((line) => line !== '')
  return lines.map((line) => {
    const match = /^# (\d+) (\S+): (.+)$/.exec(line)
    if (match === null) throw new Error(`${file}: not an expectation: ${line}`)
    return { line: Number(match[1]), path: match[2] === '-' ? '' : (match[2] as string), sentence: match[3] as string }
  })
}

function problemsOf(file: string): readonly Problem[] {
  try {
    loadConfig({ file, env: {} })
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

describe('a configuration is refused with place and reason:', () => {
  it.each(readdirSync(CASES).filter((name) => name.endsWith('.yaml')))('%s', (name) => {
    const file = join(CASES, name)
    const expected = readExpected(file)
    const problems = problemsOf(file)
    expect(expected.length).toBeGreaterThan(0)
    expect(problems.map(({ source }) => source)).toEqual(expected.map(() => file))
    expect(problems.map(({ line = 0, path }) => `${line} ${path}`)).toEqual(
      expected.map(({ line, path }) => `${line} ${path}`),
    )
    expect(problems.map(({ problem, hint }) => (hint === undefined ? problem : `${problem} ${hint}`))).toEqual(
      expected.map(({ sentence }) => sentence),
    )
  })
})
