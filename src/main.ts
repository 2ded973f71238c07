#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { COMMANDS, HELP } from './commands/help.ts'
import type { Signals } from './commands/serve.ts'
import { ConfigError } from './errors.ts'

// First of all: as PID 1 a process without handlers ignores SIGTERM until it is killed.
const signals = listenForSignals()
process.exitCode = await run(process.argv.slice(2))
process.exit()

async function run(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv
  if (command === undefined) {
    process.stderr.write(HELP)
    return 64
  }
  if (['--help', '-h', 'help'].includes(command)) {
    process.stdout.write(HELP)
    return 0
  }
  if (['--version', 'version'].includes(command)) {
    process.stdout.write(`bearward ${readVersion()} (Node ${process.versions.node})\n`)
    return 0
  }
  if (command.startsWith('-')) return usage(`There is no option "${command}". See "bearward --help".`)
  if (!Object.hasOwn(COMMANDS, command)) {
    return usage(`There is no command "${command}"; the commands are ${Object.keys(COMMANDS).join(', ')}.`)
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(COMMANDS[command as keyof typeof COMMANDS])
    return 0
  }
  // `--config "$FILE"` with the variable unset must not look like a file that is missing, nor like no file.
  if (rest.includes('')) return usage(`An argument is empty. See "bearward ${command} --help".`)
  return runCommand(command as keyof typeof COMMANDS, rest)
}

async function runCommand(command: keyof typeof COMMANDS, argv: readonly string[]): Promise<number> {
  const io = {
    stdout: (text: string) => void process.stdout.write(text),
    stderr: (text: string) => void process.stderr.write(text),
    env: process.env,
  }
  // Each is loaded when it is asked for: a probe must not wait for what only the sidecar needs.
  switch (command) {
    case 'serve':
      return runServe(argv)
    case 'check-config':
      return (await import('./commands/check-config.ts')).checkConfig(argv, io)
    case 'probe':
      return (await import('./commands/probe.ts')).probe(argv, io)
    case 'drain':
      return (await import('./commands/drain.ts')).drain(argv, io)
  }
}

async function runServe(argv: readonly string[]): Promise<number> {
  let file: string | undefined
  try {
    file = parseArgs({ args: [...argv], options: { config: { type: 'string', short: 'c' } } }).values.config
  } catch (error) {
    return usage(`${(error as Error).message.split(/\.\s/, 1)[0]}. See "bearward serve --help".`)
  }
  const { serve } = await import('./commands/serve.ts')
  try {
    const stderr = (text: string) => void process.stderr.write(text)
    return await serve({ file, env: process.env, version: readVersion(), stderr }, signals)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    return 78
  }
}

function usage(sentence: string): number {
  process.stderr.write(`${sentence}\n`)
  return 64
}

function readVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function listenForSignals(): Signals {
  const first = Promise.withResolvers<'SIGTERM' | 'SIGINT'>()
  const second = Promise.withResolvers<void>()
  let signalled = false
  let hangUp: (() => void) | undefined
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (signalled) second.resolve()
      signalled = true
      first.resolve(signal)
    })
  }
  process.on('SIGHUP', () => hangUp?.())
  return { first: first.promise, second: second.promise, onHangup: (run) => void (hangUp = run) }
}
