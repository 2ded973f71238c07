import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { stringify } from 'yaml'
import type { Ports } from './walkthrough.ts'

/** bearward as a process of its own. */
export interface Bearward {
  /** Waits until it is ready for traffic; resolves to the ports it bound, or to nothing when it ended before. */
  ready(): Promise<Pick<Ports, 'proxy' | 'ops' | 'helper'> | undefined>
  /** Writes what it has logged so far, and from now on every line, to standard error. */
  showLog(): void
  signal(name: 'SIGINT' | 'SIGTERM'): void
  /** Resolves when it is gone and everything it said was read. */
  readonly ended: Promise<{ readonly clean: boolean; readonly how: string }>
  /** Leaves nothing behind, whatever happened; for the end of this process. */
  discard(): void
}

const MAIN = resolve(import.meta.dirname, '../../src/main.ts')
const READY_POLL_MS = 50

/**
 * Starts bearward from its source, with a configuration in a temporary folder.
 *
 * @param env - variables to add; those of the caller that would change the configuration are left out
 */
export function spawnBearward(config: object, env: Readonly<Record<string, string>>): Bearward {
  const folder = mkdtempSync(join(tmpdir(), 'bearward-start-'))
  const file = join(folder, 'bearward.yaml')
  writeFileSync(file, stringify(config))
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('BEARWARD_'))
  const child = spawn(process.execPath, [MAIN, 'serve', '--config', file], {
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // Out of the terminal's process group: Ctrl-C would reach it there and come a second time through this process, and
    // a second signal means "at once".
    detached: true,
  })

  const signals = new Set<NodeJS.Signals | null>()
  const log = collectLog([child.stdout, child.stderr])
  const ended = new Promise<Awaited<Bearward['ended']>>((done) => {
    child.once('close', (code, signal) =>
      // Signalled before it could listen for signals, it ends by the signal, with nothing lost.
      done({
        clean: code === 0 || signals.has(signal),
        how: code === null ? `by ${signal}` : `with exit code ${code}`,
      }),
    )
  })
  let running = true
  void ended.then(() => (running = false))

  return {
    async ready() {
      const started = await Promise.race([log.started, ended])
      if ('how' in started) return undefined
      while (running && !(await isReady(started.ops))) await setTimeout(READY_POLL_MS)
      return running ? started : undefined
    },
    showLog: log.show,
    signal(name) {
      signals.add(name)
      child.kill(name)
    },
    ended,
    discard() {
      child.kill('SIGKILL')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function isReady(port: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 200
  } catch {
    return false
  }
}

type Started = Pick<Ports, 'proxy' | 'ops' | 'helper'>

/** Holds the lines back until they are to be shown, and finds the one that tells the ports. */
function collectLog(streams: readonly Readable[]) {
  const started = Promise.withResolvers<Started>()
  const held: string[] = []
  let shown = false
  const take = (line: string) => {
    if (shown) process.stderr.write(`${line}\n`)
    else held.push(line)
    const ports = readStarted(line)
    if (ports !== undefined) started.resolve(ports)
  }
  for (const input of streams) createInterface({ input }).on('line', take)
  return {
    started: started.promise,
    show() {
      shown = true
      for (const line of held.splice(0)) process.stderr.write(`${line}\n`)
    },
  }
}

function readStarted(line: string): Started | undefined {
  if (!line.includes('"msg":"started"')) return undefined
  const fields = JSON.parse(line) as Record<'proxy_port' | 'ops_port' | 'helper_port', number>
  return { proxy: fields.proxy_port, ops: fields.ops_port, helper: fields.helper_port }
}
