import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'rolldown'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import config from '../../rolldown.config.ts'
import { startNode } from '../cli/command.ts'

let folder: string
let files: string[]

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bearward-bundle-'))
  const { output, ...options } = config
  await build({ ...options, output: { ...output, dir: join(folder, 'dist') } })
  copyFileSync('package.json', join(folder, 'package.json'))
  files = readdirSync(join(folder, 'dist')).filter((name) => name.endsWith('.js'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const read = (name: string) => readFileSync(join(folder, 'dist', name), 'utf8')

async function run(argv: readonly string[]) {
  const command = startNode(argv)
  return { code: await command.ended, stdout: command.stdout(), stderr: command.stderr() }
}

describe('the built program', () => {
  it('loads every file it has with no package beside it', async () => {
    // What is not loaded at the start must be there, too: Redis, proxies, the token helper, the other commands.
    expect(files.length).toBeGreaterThan(8)
    for (const name of files.filter((file) => file !== 'main.js')) {
      const load = `await import(${JSON.stringify(join(folder, 'dist', name))})`
      expect(await run(['--input-type=module', '-e', load]), name).toEqual({ code: 0, stdout: '', stderr: '' })
    }
    const { code, stdout } = await run([join(folder, 'dist/main.js'), '--version'])
    expect([code, stdout.split(' ', 1)[0]]).toEqual([0, 'bearward'])
  })

  it('imports no module of Node, since that would load parts of Node that nobody asked for', () => {
    const imports = files.flatMap((name) => read(name).match(/^import .*"node:.*$/gm) ?? [])
    expect(imports).toEqual(['import { createRequire } from "node:module";'])
  })

  it('is ASCII, since one other character would double what its text takes in memory', () => {
    expect(files.filter((name) => /[^\0-\x7f]/.test(read(name)))).toEqual([])
    expect(read('serve.js')).toContain('\\u2026')
  })

  it('keeps the names of functions, so that stacks can be read, and maps to the lines of the source', () => {
    const serve = read('serve.js')
    expect(serve).toContain('function createRuntime(')
    expect(serve).toMatch(/\/\/# sourceMappingURL=serve\.js\.map\s*$/)
    const { sources, sourcesContent } = JSON.parse(read('serve.js.map')) as Record<string, unknown[]>
    expect(sources?.some((source) => String(source).endsWith('src/runtime.ts'))).toBe(true)
    expect(sourcesContent?.every((text) => text === null) ?? true).toBe(true)
  })
})
