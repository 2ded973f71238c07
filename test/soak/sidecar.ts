import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { stringify } from 'yaml'

const MAIN = resolve(import.meta.dirname, '../../src/main.ts')

/** What a process holds at a moment. */
export interface Holdings {
  /** Open files and sockets. */
  readonly descriptors: number
  /** What the garbage collector cannot free, and what lies outside of its heap for it, in bytes. */
  readonly heapBytes: number
  readonly externalBytes: number
  readonly residentBytes: number
  readonly requestsInFlight: number
  /** Faults that bearward took for its own. */
  readonly unexpectedErrors: number
}

/** bearward as a process of its own that can be looked into. */
export interface SoakedSidecar {
  readonly port: number
  /** Of the process: nothing if it has ended by itself. */
  readonly ended: () => string | undefined
  /** After a full garbage collection. */
  holdings(): Promise<Holdings>
  stop(): Promise<void>
}

/** Starts it with a configuration, `listen` and log level aside, and waits until it is ready. */
export async function startSoakedSidecar(config: Readonly<Record<string, unknown>>): Promise<SoakedSidecar> {
  const folder = mkdtempSync(join(tmpdir(), 'bearward-soak-'))
  const [proxy, ops, inspector] = await takeFreePorts(3)
  const listen = { proxy: `127.0.0.1:${proxy}`, ops: `127.0.0.1:${ops}` }
  // A line for each caller that left would fill a disk within a night.
  const telemetry = { log_level: 'error', access_log: false }
  writeFileSync(join(folder, 'bearward.yaml'), stringify({ ...config, listen, telemetry }))
  // The settings of the image.
  const argv = [
    `--inspect=127.0.0.1:${inspector}`,
    '--max-semi-space-size=4',
    MAIN,
    'serve',
    '--config',
    join(folder, 'bearward.yaml'),
  ]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'inherit', 'ignore'] })
  let how: string | undefined
  const ended = new Promise<void>((done) =>
    child.once('close', (code, signal) => {
      how = `with ${code ?? signal}`
      done()
    }),
  )
  const endWithThis = () => void child.kill('SIGKILL')
  process.once('exit', endWithThis)
  while (!(await isReady(ops as number))) {
    if (how !== undefined) throw new Error(`bearward ended ${how} before it was ready`)
    await sleep(50)
  }
  const debug = await openInspector(inspector as number)
  return {
    port: proxy as number,
    ended: () => how,
    async holdings() {
      const memory = await debug.memory()
      const metrics = await (
        await fetch(`http://127.0.0.1:${ops}/metrics`, { headers: { connection: 'close' } })
      ).text()
      return { ...memory, ...readMetrics(metrics), descriptors: readdirSync(`/proc/${child.pid}/fd`).length }
    },
    async stop() {
      // It would wait for its debugger to go.
      debug.close()
      child.kill('SIGINT')
      await ended
      process.off('exit', endWithThis)
      rmSync(folder, { recursive: true })
    },
  }
}

async function isReady(ops: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${ops}/readyz`, { headers: { connection: 'close' } })).status === 200
  } catch {
    return false
  }
}

function readMetrics(text: string): Pick<Holdings, 'requestsInFlight' | 'unexpectedErrors'> {
  const read = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? NaN)
  return {
    requestsInFlight: read('bearward_requests_in_flight'),
    unexpectedErrors: read('bearward_unexpected_errors_total'),
  }
}

type Memory = Pick<Holdings, 'heapBytes' | 'externalBytes' | 'residentBytes'>

/** Asks a process, by way of its debugger, to collect garbage and to say what is left. */
async function openInspector(port: number): Promise<{ memory(): Promise<Memory>; close(): void }> {
  const [target] = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as {
    webSocketDebuggerUrl: string
  }[]
  const socket = new WebSocket(target?.webSocketDebuggerUrl ?? '')
  await new Promise((done, fail) => socket.once('open', done).once('error', fail))
  socket.on('error', () => undefined)
  let id = 0
  const call = (method: string, params = {}) =>
    new Promise<{ result: { result?: { value?: string } } }>((done) => {
      const mine = (id += 1)
      const take = (text: Buffer) => {
        const message = JSON.parse(text.toString()) as { id?: number; result: { result?: { value?: string } } }
        if (message.id !== mine) return
        socket.off('message', take)
        done(message)
      }
      socket.on('message', take)
      socket.send(JSON.stringify({ id: mine, method, params }))
    })
  return {
    async memory() {
      // What is freed by the first may be held by finalizers until the second.
      for (let i = 0; i < 2; i += 1) await call('HeapProfiler.collectGarbage')
      const { result } = await call('Runtime.evaluate', { expression: 'JSON.stringify(process.memoryUsage())' })
      const { heapUsed, external, rss } = JSON.parse(result.result?.value ?? '{}') as NodeJS.MemoryUsage
      return { heapBytes: heapUsed, externalBytes: external, residentBytes: rss }
    },
    close: () => socket.terminate(),
  }
}

/** Ports that nobody uses; somebody might take one before it is used, which then fails loudly. */
async function takeFreePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => new Promise((done) => server.once('listening', done))))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}
