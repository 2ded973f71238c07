import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { startApp, type App } from '../../src/app.ts'
import { loadConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { systemClock, type Clock } from '../../src/util/clock.ts'

/** A line of the log, parsed. */
export type LogLine = Readonly<Record<string, unknown>>

export interface FakeSidecar {
  readonly app: App
  /** Origins of the listeners. */
  readonly proxy: string
  readonly ops: string
  readonly helper: string
  readonly proxyPort: number
  /** Everything written to the log. */
  logText(): string
  logLines(): LogLine[]
  /** The last line about a request. */
  lastRequest(): LogLine
  /** The last line about a token request. */
  lastExchange(): LogLine
  /** Waits until `/readyz` says yes. */
  ready(): Promise<void>
  metrics(): Promise<string>
  stop(): Promise<void>
}

export interface SidecarSettings {
  /** The configuration as in YAML, without `listen`. */
  readonly config: Readonly<Record<string, unknown>>
  readonly clock?: Clock
  /** Variables beside those of the tests. */
  readonly env?: Readonly<Record<string, string>>
}

const running = new Set<FakeSidecar>()

/** Everything logged by all sidecars of this test file, for the search for planted secrets. */
export const allOutput: string[] = []

/** Starts a whole sidecar on free ports, at trace level, from a configuration file as an operator would write it. */
export async function startSidecar({ config, clock, env }: SidecarSettings): Promise<FakeSidecar> {
  const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  const file = join(folder, 'bearward.yaml')
  const listen = { proxy: '127.0.0.1:0', ops: '127.0.0.1:0', helper: '127.0.0.1:0', ...(config['listen'] as object) }
  const drain = { delay: '0s', timeout: '5s', ...(config['drain'] as object) }
  writeFileSync(file, stringify({ telemetry: { log_level: 'trace' }, ...config, listen, drain }))
  const loaded = loadConfig({ file, env: {} })
  rmSync(folder, { recursive: true })

  const lines: string[] = []
  const write = (line: string) => {
    lines.push(line)
    allOutput.push(line)
  }
  const output = { write, flush: () => Promise.resolve(), dropped: () => 0 }
  const log = createLog({ level: loaded.telemetry.log_level, clock: systemClock, output })
  const app = await startApp({
    config: loaded,
    env: { ...process.env, ...env },
    log,
    version: 'test',
    ...(clock && { clock }),
  })
  const ops = `http://127.0.0.1:${app.ports.ops}`
  const logLines = () => lines.map((line) => JSON.parse(line) as LogLine)
  const sidecar: FakeSidecar = {
    app,
    proxy: `http://127.0.0.1:${app.ports.proxy}`,
    ops,
    helper: `http://127.0.0.1:${app.ports.helper}`,
    proxyPort: app.ports.proxy,
    logText: () => lines.join(''),
    logLines,
    lastRequest: () => logLines().findLast(({ msg }) => msg === 'request') ?? {},
    lastExchange: () => logLines().findLast(({ msg }) => msg === 'exchange') ?? {},
    async ready() {
      const deadline = performance.now() + 15_000
      while ((await fetch(`${ops}/readyz`)).status !== 200) {
        if (performance.now() > deadline) throw new Error(`not ready:\n${lines.join('')}`)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
    async metrics() {
      const text = await (await fetch(`${ops}/metrics`)).text()
      allOutput.push(text)
      return text
    },
    async stop() {
      running.delete(sidecar)
      await app.drain(0)
    },
  }
  running.add(sidecar)
  return sidecar
}

/** Stops whatever a test left running. */
export async function stopSidecars(): Promise<void> {
  await Promise.all([...running].map((sidecar) => sidecar.stop()))
}
