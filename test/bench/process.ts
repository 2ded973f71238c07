import { execFile, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { LoadOptions, LoadResult } from './load.ts'

/** It cannot be measured; the message is for the user. */
export class BenchError extends Error {}

/** A process that takes part in a measurement. */
export interface Participant {
  readonly pid: number
  readonly port: number
  /** Where its metrics are, if it has any. */
  readonly opsPort: number | undefined
  /** User and system time spent so far, all threads, in microseconds; absent where the kernel does not tell. */
  cpuMicroseconds(): number | undefined
  /** Resident memory in MB; absent where the kernel does not tell. */
  residentMegabytes(): number | undefined
  stop(): Promise<void>
}

const START_LIMIT_MS = 30_000
const POLL_MS = 20
/** The unit of `/proc/PID/stat`: 100 ticks a second, on every Linux that Node supports. */
const MICROSECONDS_PER_TICK = 10_000

/**
 * Starts a process and waits until it has written the line that tells its port. Its output goes to a file, as that of a
 * container does.
 */
export async function startParticipant(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  output: string,
): Promise<Participant> {
  const [program = '', ...argv] = command
  const descriptor = openSync(output, 'w')
  // Variables of the caller that would change the configuration stay out.
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('BEARWARD_')))
  const child = spawn(program, argv, { env: { ...inherited, ...env }, stdio: ['ignore', descriptor, 'inherit'] })
  closeSync(descriptor)
  let running = true
  const ended = new Promise<void>((done, fail) => {
    child.once('error', fail)
    child.once('exit', () => {
      running = false
      done()
    })
  })
  const end = () => void child.kill('SIGKILL')
  process.once('exit', end)

  const started = await waitForStart(output, () => running)
  if (started === undefined) throw new BenchError(`${command.join(' ')} did not start.`)
  const pid = child.pid as number
  return {
    pid,
    port: started.proxy_port,
    opsPort: started.ops_port,
    cpuMicroseconds: () => readCpu(pid),
    residentMegabytes: () => readMemory(pid),
    async stop() {
      child.kill('SIGTERM')
      await ended
      process.off('exit', end)
    },
  }
}

interface Started {
  readonly proxy_port: number
  readonly ops_port?: number
}

async function waitForStart(output: string, isRunning: () => boolean): Promise<Started | undefined> {
  const deadline = performance.now() + START_LIMIT_MS
  while (isRunning() && performance.now() < deadline) {
    const line = readFileSync(output, 'utf8')
      .split('\n')
      .find((text) => text.includes('"msg":"started"') && text.endsWith('}'))
    if (line !== undefined) return JSON.parse(line) as Started
    await setTimeout(POLL_MS)
  }
  return undefined
}

function readCpu(pid: number): number | undefined {
  const file = `/proc/${pid}/stat`
  if (!existsSync(file)) return undefined
  // The name of the program, in parentheses, may hold spaces.
  const fields = readFileSync(file, 'utf8').split(') ').at(-1)?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * MICROSECONDS_PER_TICK
}

function readMemory(pid: number): number | undefined {
  const file = `/proc/${pid}/status`
  if (!existsSync(file)) return undefined
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(file, 'utf8'))?.[1]
  return kilobytes === undefined ? undefined : Number(kilobytes) / 1024
}

const LOAD = resolve(import.meta.dirname, 'load.ts')

/** Runs a load in a process of its own, so that it shares nothing with what is measured but the machine. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { stdout } = await promisify(execFile)(process.execPath, [LOAD, JSON.stringify(options)]).catch(toBenchError)
  return JSON.parse(stdout) as LoadResult
}

function toBenchError(error: { readonly stderr?: string }): never {
  const reason = /^Error: (.+)$/m.exec(error.stderr ?? '')?.[1] ?? 'for no known reason'
  throw new BenchError(`The load broke off: ${reason}.`)
}
