import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from './free-port.ts'

/** A real Redis on loopback, that can be stopped in the middle. */
export interface FakeRedis {
  readonly port: number
  /** Sends commands (in the inline form, one per line) and gives the whole reply. */
  ask(...commands: string[]): Promise<string>
  /** Everything in it: keys, values and times to live. */
  dump(): Promise<string>
  /** Freezes the process: connections stand, and nothing is answered. */
  freeze(): void
  thaw(): void
  /** Ends it at once; nothing is kept. */
  kill(): Promise<void>
  /** Starts it on its port again, empty. */
  restart(): Promise<void>
  stop(): Promise<void>
}

/** Whether there is a redis-server to start. Prints why tests are left out, if there is none. */
export function isRedisInstalled(): boolean {
  const { error, status } = spawnSync('redis-server', ['--version'])
  if (error === undefined && status === 0) return true
  console.log('skipped: redis-server is not installed, so nothing can be tested against a real Redis')
  return false
}

const running = new Set<FakeRedis>()

/**
 * Starts a Redis that keeps nothing on disk.
 *
 * @param settings - further lines of its configuration, such as `['requirepass', 'x']`
 */
export async function startRedis(...settings: (readonly string[])[]): Promise<FakeRedis> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'bearward-redis-'))
  const password = settings.find(([name]) => name === 'requirepass')?.[1]
  const tls = settings.some(([name]) => name === 'tls-port')
  const argv = [
    ...['--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', '--port', tls ? '0' : String(port)],
    ...settings.flatMap(([name, ...values]) => [
      `--${name}`,
      ...values.map((value) => (value === 'PORT' ? String(port) : value)),
    ]),
  ]
  let child: ChildProcess
  const start = async () => {
    child = spawn('redis-server', argv, { stdio: 'ignore' })
    await untilListening(port, child)
  }
  const end = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve()
      child.once('exit', () => resolve())
      child.kill('SIGKILL')
    })
  await start()
  const ask = (...commands: string[]) =>
    talk(port, [...(password === undefined ? [] : [`AUTH ${password}`]), ...commands])
  const redis: FakeRedis = {
    port,
    ask,
    async dump() {
      const keys = [...(await ask('KEYS *')).matchAll(/^\$\d+\r\n(.*)\r$/gm)].map(([, key]) => key as string)
      const values = await Promise.all(keys.map((key) => ask(`GET ${key}`, `PTTL ${key}`)))
      return keys.map((key, i) => `${key} ${values[i]}`).join('\n')
    },
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    kill: end,
    restart: start,
    async stop() {
      running.delete(redis)
      await end()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  running.add(redis)
  return redis
}

/** Stops whatever a test left running. */
export async function stopRedis(): Promise<void> {
  await Promise.all([...running].map((redis) => redis.stop()))
}

async function untilListening(port: number, child: ChildProcess): Promise<void> {
  const deadline = performance.now() + 10_000
  for (;;) {
    if (child.exitCode !== null) throw new Error(`redis-server ended with ${child.exitCode}`)
    if (await canConnect(port)) return
    if (performance.now() > deadline) throw new Error('redis-server does not listen')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** Inline commands, and QUIT so that the server ends the conversation. */
function talk(port: number, commands: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => (text += chunk))
    socket.once('error', reject)
    socket.once('close', () => resolve(text))
    socket.write([...commands, 'QUIT', ''].join('\r\n'))
  })
}
