import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { renderWalkthrough, walkthrough, type Ports } from '../dev/walkthrough.ts'
import { endCommands, eventually, startCommand, startNode, takePort, type Command } from './command.ts'

const START = 'test/dev/start.ts'
const FREE_PORTS = ['proxy', 'ops', 'helper', 'issuer', 'api'].flatMap((name) => [`--${name}-port`, '0'])
const END_OF_WALKTHROUGH = '# From here on'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-cli-'))))
afterEach(async () => {
  await endCommands()
  rmSync(folder, { recursive: true })
})

/** What it says on standard error, without the opinion of the oidc-provider package on versions of Node. */
function said({ stderr }: Command): string[] {
  const lines = stderr().split('\n')
  return lines.filter((line) => line !== '' && !line.startsWith('oidc-provider WARNING: Unsupported runtime'))
}

/** Starts it on free ports and waits until the walkthrough is there. */
async function start(run: 'node' | 'npm' = 'node'): Promise<{ command: Command; ports: Ports }> {
  const options = { env: { TMPDIR: folder, BEARWARD_UPSTREAM: 'http://127.0.0.1:1' }, ownGroup: true }
  const command =
    run === 'node'
      ? startNode([START, ...FREE_PORTS], options)
      : startCommand('npm', ['start', '--', ...FREE_PORTS], options)
  await command.until(() => command.stdout().includes(END_OF_WALKTHROUGH))
  const port = (what: string) => Number(new RegExp(`#   ${what} +http://127.0.0.1:(\\d+)`).exec(command.stdout())?.[1])
  const ports = {
    proxy: port('proxy'),
    ops: port('ops'),
    helper: port('helper'),
    issuer: port('authorization server'),
    api: port('sample API'),
  }
  return { command, ports }
}

/** Nothing listens, nothing runs and nothing lies about. */
async function expectNothingLeft(ports: Ports): Promise<void> {
  for (const port of Object.values(ports)) expect(await isListening(port), `port ${port}`).toBe(false)
  expect(processesNaming(folder)).toEqual([])
  expect(leftovers()).toEqual([])
}

/** Files of ours; npm keeps a cache of its own beside them. */
const leftovers = () => readdirSync(folder).filter((name) => name.startsWith('bearward'))

function isListening(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      done(true)
    })
    socket.on('error', () => done(false))
  })
}

/** Processes with a text in their command line, as far as the system shows them. */
function processesNaming(text: string): number[] {
  if (!existsSync('/proc/self/cmdline')) return []
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
      } catch {
        return false
      }
    })
    .map(Number)
}

describe('npm start', () => {
  it('prints lines that work as printed: verified, refused, refreshed', async (context) => {
    for (const tool of ['bash', 'curl', 'sed', 'grep']) {
      if (spawnSync(tool, ['--version']).error !== undefined) context.skip(`there is no ${tool} on this machine`)
    }
    const { command, ports } = await start()
    const steps = walkthrough(ports)
    const printed = command.stdout()
    expect(printed).toContain(renderWalkthrough(steps))
    const lines = printed.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    expect(lines).toEqual(steps.map((step) => step.command))

    const marker = '=== end of step ==='
    const bash = startCommand('bash', ['-c', lines.map((line) => `${line}\necho '${marker}'`).join('\n')])
    expect(await bash.ended).toBe(0)
    expect(bash.stderr()).toBe('')
    const outputs = bash.stdout().split(`${marker}\n`)
    for (const [i, { title, expect: texts }] of steps.entries()) {
      expect(outputs[i]?.trim(), title).not.toBe('')
      for (const text of texts) expect(outputs[i], title).toContain(text)
    }
    expect(outputs).toHaveLength(steps.length + 1)

    // The log of bearward comes beside the lines to paste, not among them.
    const calls = lines.filter((line) => line.includes(`:${ports.proxy}/`)).length
    await command.until(() => said(command).filter((line) => line.includes('"msg":"request"')).length === calls)
    for (const line of said(command)) expect(JSON.parse(line)).toHaveProperty('msg')
    expect(command.stderr()).not.toContain('eyJ')
    process.kill(command.pid, 'SIGTERM')
    expect(await command.ended).toBe(0)
  })

  it.each(['node', 'npm'] as const)('as %s stops on a Ctrl-C of the terminal', async (run) => {
    const { command, ports } = await start(run)
    if (existsSync('/proc/self/cmdline')) expect(processesNaming(folder)).toHaveLength(1)
    process.kill(-command.pid, 'SIGINT')
    expect(await command.ended).toBe(0)
    expect(command.stderr()).toContain('"msg":"stopped"')
    expect(command.stderr()).not.toContain('second signal')
    await expectNothingLeft(ports)
  })

  it.each(['node', 'npm'] as const)('as %s stops on a SIGTERM to itself alone', async (run) => {
    const { command, ports } = await start(run)
    process.kill(command.pid, 'SIGTERM')
    expect(await command.ended).toBe(0)
    expect(command.stderr()).toContain('"msg":"stopped"')
    await expectNothingLeft(ports)
  })

  it('stops before everything runs, too', async () => {
    const command = startNode([START, ...FREE_PORTS], { env: { TMPDIR: folder }, ownGroup: true })
    await eventually(() => leftovers().length > 0)
    process.kill(command.pid, 'SIGTERM')
    expect(await command.ended).toBe(0)
    expect(processesNaming(folder)).toEqual([])
    expect(leftovers()).toEqual([])
  })

  it('says so when bearward ends by itself, and exits with 1', async (context) => {
    if (!existsSync('/proc/self/cmdline')) context.skip('needs /proc to find the process')
    const { command, ports } = await start()
    const [pid] = processesNaming(folder)
    process.kill(pid as number, 'SIGKILL')
    expect(await command.ended).toBe(1)
    expect(command.stderr().trimEnd().split('\n').at(-1)).toMatch(/^bearward ended by itself, by SIGKILL/)
    await expectNothingLeft(ports)
  })

  it.each(['proxy', 'ops', 'helper', 'issuer', 'api'])('names a taken port of %s and the way out', async (name) => {
    const taken = await takePort()
    const others = FREE_PORTS.with(FREE_PORTS.indexOf(`--${name}-port`) + 1, String(taken.port))
    const command = startNode([START, ...others], { env: { TMPDIR: folder } })
    expect(await command.ended).toBe(1)
    expect(command.stdout()).toBe('')
    const sentence = new RegExp(`^Port ${taken.port} for the .+ taken .+--${name}-port \\d+$`)
    expect(said(command)).toEqual([expect.stringMatching(sentence)])
    expect(leftovers()).toEqual([])
    await taken.release()
  })

  it.each([
    ['an unknown flag', ['--colour'], "'--colour'"],
    ['an argument', ['now'], "'now'"],
    ['a flag without its port', ['--ops-port'], '--ops-port'],
    ['a flag in place of a port', ['--ops-port', '--help'], '--ops-port'],
    ['a port that is none', ['--ops-port', '70000'], '70000'],
    ['one port for two', ['--ops-port', '5000', '--api-port', '5000'], '5000'],
  ])('refuses %s in one sentence and exits with 64', async (_what, argv, named) => {
    const command = startNode([START, ...argv])
    expect(await command.ended).toBe(64)
    expect(command.stdout()).toBe('')
    expect(command.stderr().trimEnd().split('\n')).toHaveLength(1)
    expect(command.stderr()).toContain(named)
  })

  it('explains its flags', async () => {
    const command = startNode([START, '--help'])
    expect(await command.ended).toBe(0)
    expect(command.stderr()).toBe('')
    for (const flag of ['proxy', 'ops', 'helper', 'issuer', 'api'])
      expect(command.stdout()).toContain(`--${flag}-port PORT`)
    expect(command.stdout()).toContain('default 9400')
  })
})
