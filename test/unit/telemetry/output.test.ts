import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createOutput } from '../../../src/telemetry/output.ts'

describe('the output of log lines', () => {
  it('writes every line once, in order, whatever their number', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
    const file = join(folder, 'log')
    const fd = openSync(file, 'w')
    const output = createOutput(fd)
    const lines = Array.from({ length: 5000 }, (_, i) => `${i} ${'ä'.repeat(i % 200)}\n`)
    for (const line of lines) output.write(line)
    await output.flush()
    closeSync(fd)
    expect(readFileSync(file, 'utf8')).toBe(lines.join(''))
    expect(output.dropped()).toBe(0)
    rmSync(folder, { recursive: true })
  })

  it('writes by itself after a moment', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
    const file = join(folder, 'log')
    const fd = openSync(file, 'w')
    createOutput(fd).write('one\n')
    await expect.poll(() => readFileSync(file, 'utf8'), { timeout: 5000 }).toBe('one\n')
    closeSync(fd)
    rmSync(folder, { recursive: true })
  })

  it('drops and counts lines, rather than fill the memory, when nobody reads', async () => {
    // A child whose standard input is a pipe that it never reads.
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    const { fd } = (child.stdin as unknown as { _handle: { fd: number } })._handle
    const output = createOutput(fd)
    const line = `${'x'.repeat(1000)}\n`
    const rssBefore = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 100_000; i += 1) output.write(line)
    expect(output.dropped()).toBeGreaterThan(80_000)
    expect(process.memoryUsage().arrayBuffers - rssBefore).toBeLessThan(16 * 1024 * 1024)
    child.kill('SIGKILL')
    await output.flush()
  })
})
