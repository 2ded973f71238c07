import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WebSocket } from 'ws'

/** A real browser without a window, driven by its own debugging protocol. */
export interface Browser {
  /** Opens a page and runs an expression in it, which may be a promise; resolves to its value. */
  run<T>(page: string, expression: string): Promise<T>
  stop(): Promise<void>
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly sessionId?: string
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
}

type Evaluation = {
  result?: { value?: unknown }
  exceptionDetails?: { text: string; exception?: { description?: string } }
}

/** The program, or `undefined` where none is installed. */
export function findBrowser(): string | undefined {
  return ['chromium', 'chromium-browser', 'google-chrome'].find(
    (program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0,
  )
}

/** Starts it with an empty profile. It takes any certificate, and does nothing but what it is told. */
export async function startBrowser(program: string): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'bearward-browser-'))
  const argv = [
    ...[
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--no-proxy-server',
    ],
    ...[
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--ignore-certificate-errors',
    ],
    ...['--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'],
  ]
  const child = spawn(program, argv, { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = new Promise((done) => child.once('close', done))
  let said = ''
  const address = await new Promise<string>((done, fail) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      const found = /DevTools listening on (ws:\S+)/.exec(said)?.[1]
      if (found !== undefined) done(found)
    })
    void ended.then(() => fail(new Error(`${program} ended:\n${said}`)))
  })
  const debug = await connectDebugger(address)
  return {
    async run<T>(page: string, expression: string): Promise<T> {
      const { targetId } = await debug.call('Target.createTarget', { url: 'about:blank' })
      const { sessionId } = await debug.call('Target.attachToTarget', { targetId, flatten: true })
      const session = sessionId as string
      await debug.call('Page.enable', {}, session)
      const loaded = debug.event('Page.loadEventFired', session)
      await debug.call('Page.navigate', { url: page }, session)
      await loaded
      const options = { expression, awaitPromise: true, returnByValue: true }
      const { result, exceptionDetails } = (await debug.call('Runtime.evaluate', options, session)) as Evaluation
      await debug.call('Target.closeTarget', { targetId })
      if (exceptionDetails === undefined) return result?.value as T
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    },
    async stop() {
      debug.close()
      child.kill('SIGKILL')
      await ended
      rmSync(profile, { recursive: true, force: true, maxRetries: 10 })
    },
  }
}

async function connectDebugger(address: string) {
  const socket = new WebSocket(address)
  await new Promise((done, fail) => socket.once('open', done).once('error', fail))
  socket.on('error', () => undefined)
  const listeners = new Set<(message: Message) => void>()
  socket.on('message', (text: Buffer) => {
    const message = JSON.parse(text.toString()) as Message
    for (const listener of [...listeners]) listener(message)
  })
  const wait = (isIt: (message: Message) => boolean) =>
    new Promise<Message>((done) => {
      const listener = (message: Message) => {
        if (!isIt(message)) return
        listeners.delete(listener)
        done(message)
      }
      listeners.add(listener)
    })
  let count = 0
  return {
    async call(method: string, params: object, sessionId?: string): Promise<Record<string, unknown>> {
      const id = (count += 1)
      const answer = wait((message) => message.id === id)
      socket.send(JSON.stringify({ id, method, params, ...(sessionId !== undefined && { sessionId }) }))
      const { result, error } = await answer
      if (error !== undefined) throw new Error(`${method}: ${error.message}`)
      return result ?? {}
    },
    event: (method: string, sessionId: string) =>
      wait((message) => message.method === method && message.sessionId === sessionId),
    close: () => socket.terminate(),
  }
}
