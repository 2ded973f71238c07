import { spawn, type ChildProcess } from 'node:child_process'
import { createServer, type AddressInfo } from 'node:net'
import { resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '../..')

/** The program under test, from the root of the repository: the source, unless `MAIN` names what was built of it. */
export const MAIN = process.env['MAIN'] ?? 'src/main.ts'

/** A process under test, with all it says. */
export interface Command {
  readonly child: ChildProcess
  readonly pid: number
  stdout(): string
  stderr(): string
  /** Resolves with the exit code, or with the signal that ended it, when all output has been read. */
  readonly ended: Promise<number | NodeJS.Signals>
  /** Waits until what it says satisfies a condition; rejects when it ends without. */
  until(condition: () => boolean): Promise<void>
}

export interface CommandOptions {
  /** Variables beside PATH and HOME; nothing else is inherited. */
  readonly env?: Readonly<Record<string, string>>
  /** In a process group of its own, as a terminal would start it. */
  readonly ownGroup?: boolean
}

const running = new Set<Command>()

/** Starts a program in the root of the repository. */
export function startCommand(
  program: string,
  argv: readonly string[],
  { env = {}, ownGroup = false }: CommandOptions = {},
): Command {
  const { PATH = '', HOME = '' } = process.env
  const child = spawn(program, argv, {
    cwd: ROOT,
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: ownGroup,
  })
  const output = { stdout: '', stderr: '' }
  const waiting = new Set<() => void>()
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
      for (const check of waiting) check()
    })
  }
  const ended = new Promise<number | NodeJS.Signals>((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => done(code ?? (signal as NodeJS.Signals)))
  })
  const command: Command = {
    child,
    pid: child.pid as number,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    ended,
    until: (condition) =>
      new Promise((done, fail) => {
        const check = () => {
          if (!condition()) return
          waiting.delete(check)
          done()
        }
        waiting.add(check)
        check()
        void ended.then((how) => fail(new Error(`ended (${how}) too early:\n${output.stdout}${output.stderr}`)), fail)
      }),
  }
  running.add(command)
  void ended.then(
    () => running.delete(command),
    () => running.delete(command),
  )
  return command
}

/** Starts a script with the Node that runs the tests. */
export function startNode(argv: readonly string[], options?: CommandOptions): Command {
  return startCommand(process.execPath, argv, options)
}

/** Ends what a failed test left running. */
export async function endCommands(): Promise<void> {
  await Promise.all(
    [...running].map((command) => {
      command.child.kill('SIGKILL')
      return command.ended
    }),
  )
}

/** Somebody else's port on 127.0.0.1. */
export async function takePort(): Promise<{ readonly port: number; release(): Promise<void> }> {
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    port: (server.address() as AddressInfo).port,
    release: () => new Promise((done) => server.close(() => done())),
  }
}

/** Waits until something holds. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((done) => setTimeout(done, 20))
}
