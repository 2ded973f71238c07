import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { endCommands, startNode } from '../cli/command.ts'
import type { Report } from './report.ts'
import { measureRooms, renderCosts } from './rooms.ts'

const NAMES = [
  'direct call',
  'bare proxy',
  'bearward RS256 warm',
  'bearward ES256 warm',
  'bearward RS256 cold',
  'bearward ES256 cold',
]

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-test-'))))
afterEach(async () => {
  await endCommands()
  rmSync(folder, { recursive: true })
})

const bench = (...argv: string[]) => startNode(['test/bench/run.ts', ...argv], { env: { TMPDIR: folder } })

describe('npm run bench', () => {
  it('measures everything, prints a table, writes figures and a chart, and leaves nothing else', async () => {
    const out = join(folder, 'out')
    const command = bench('--duration', '0.1', '--rate', '200', '--out', out, '--main', 'src/main.ts')
    expect(await command.ended, command.stderr()).toBe(0)

    const report = JSON.parse(readFileSync(join(out, 'bench.json'), 'utf8')) as Report
    expect(report).toMatchObject({ node: process.versions.node, duration: 0.1, rate: 200 })
    expect(report.rows.map(({ name }) => name)).toEqual(NAMES)
    for (const row of report.rows) {
      expect(row.requestsPerSecond, row.name).toBeGreaterThan(0)
      expect(row.p50, row.name).toBeGreaterThan(0)
      expect(row.p50).toBeLessThanOrEqual(row.p99)
      expect(row.p99).toBeLessThanOrEqual(row.p999)
      // Only the kernel of Linux tells what a process spent; of a direct call there is no process to ask.
      const told = existsSync('/proc/self/stat') && row.name !== 'direct call'
      expect(typeof row.cpuPerRequest, row.name).toBe(told ? 'number' : 'undefined')
      expect(typeof row.megabytes, row.name).toBe(told ? 'number' : 'undefined')
      expect(typeof row.cacheHits, row.name).toBe(row.name.startsWith('bearward') ? 'number' : 'undefined')
    }

    for (const name of NAMES) expect(command.stdout()).toMatch(new RegExp(`^${name} +\\d+ `, 'm'))
    const chart = readFileSync(join(out, 'bench.svg'), 'utf8')
    expect(chart).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[\s\S]+<\/svg>\n$/)
    expect(readdirSync(folder)).toEqual(['out'])
  }, 120_000)

  it.each([
    ['an unknown flag', ['--fast'], 64, "'--fast'"],
    ['a duration that is none', ['--duration', 'long'], 64, '"long"'],
    ['a rate out of bounds', ['--rate', '0'], 64, '"0"'],
    ['a file that is not built yet', ['--main', 'absent.js'], 1, 'npm run build'],
  ])('refuses %s in one sentence', async (_what, argv, code, named) => {
    const command = bench(...argv)
    expect(await command.ended).toBe(code)
    expect(command.stdout()).toBe('')
    expect(command.stderr().trimEnd().split('\n')).toHaveLength(1)
    expect(command.stderr()).toContain(named)
  })

  it('explains its flags', async () => {
    const command = bench('--help')
    expect(await command.ended).toBe(0)
    for (const flag of ['--duration', '--rate', '--out']) expect(command.stdout()).toContain(`${flag} `)
  })
})

describe('npm run bench:rooms', () => {
  it('measures an operation of each room', async () => {
    const costs = await measureRooms(0.01)
    expect(costs.map(({ name }) => name)).toEqual([
      'gate, warm',
      'gate, cold RS256',
      'gate, cold ES256',
      'header pass',
      'rule match, 1 rule',
      'rule match, 100 rules',
      'rule match, 10000 rules',
      'refusal, no token',
      'refusal, garbage',
    ])
    for (const { name, nanoseconds } of costs) expect(nanoseconds, name).toBeGreaterThan(0)
    expect(renderCosts(costs)).toMatch(/^gate, warm +[\d.]+ (ns|µs)$/m)
  })
})
