import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import type { LogLine } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'
import { endCommands, eventually, MAIN, startNode, takePort, type Command } from './command.ts'

const ANY_PORT = '127.0.0.1:0'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let folder: string

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
})
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-cli-'))))
afterEach(async () => {
  await endCommands()
  rmSync(folder, { recursive: true })
})
afterAll(async () => {
  await issuer.stop()
  await upstream.stop()
})

const bearward = (argv: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  startNode([MAIN, ...argv], { env })

/** Runs a command that ends by itself. */
async function run(argv: readonly string[], env?: Readonly<Record<string, string>>) {
  const command = bearward(argv, env)
  return { code: await command.ended, stdout: command.stdout(), stderr: command.stderr() }
}

const lines = (text: string) => text.trimEnd().split('\n')

/** Writes a configuration that works, with changes. */
function writeConfig(changes: Readonly<Record<string, unknown>> = {}): string {
  const config = {
    issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
    upstream: upstream.url,
    listen: { proxy: ANY_PORT, ops: ANY_PORT, helper: ANY_PORT },
    drain: { delay: '0s' },
    ...changes,
  }
  return write('bearward.yaml', stringify(config))
}

function write(name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}

interface Serving {
  readonly command: Command
  log(): LogLine[]
  /** Asks the proxy with a valid token. */
  call(): Promise<Response>
  readyz(): Promise<number>
}

/** Waits until `serve` is ready. */
async function whenReady(command: Command): Promise<Serving> {
  await command.until(() => command.stdout().includes('"msg":"started"'))
  const log = () => lines(command.stdout()).map((line) => JSON.parse(line) as LogLine)
  const { proxy_port: proxy, ops_port: ops } = log().find(({ msg }) => msg === 'started') ?? {}
  const serving: Serving = {
    command,
    log,
    call: () =>
      fetch(`http://127.0.0.1:${Number(proxy)}/orders`, {
        headers: { authorization: `Bearer ${issuer.signAccessToken({ sub: 'user-7' })}` },
      }),
    readyz: async () => (await fetch(`http://127.0.0.1:${Number(ops)}/readyz`)).status,
  }
  await eventually(async () => (await serving.readyz()) === 200)
  return serving
}

const serve = (config: string) => whenReady(bearward(['serve', '--config', config]))

describe('bearward', () => {
  it.each([['--help'], ['-h'], ['help']])('%s lists the commands and the exit codes', async (flag) => {
    const { code, stdout, stderr } = await run([flag])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^ {2}serve .+\n {2}check-config .+/m)
    expect(stdout).toContain('78 bad configuration')
  })

  it.each([
    ['serve', ['--config FILE', 'SIGTERM', 'BEARWARD_ISSUER', 'BEARWARD_LOG_LEVEL']],
    ['check-config', ['[FILE]', '78 problems found', 'BEARWARD_UPSTREAM']],
  ])('%s --help explains the command', async (name, texts) => {
    const { code, stdout, stderr } = await run([name, '--help'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toContain(`Usage: bearward ${name} `)
    for (const text of texts) expect(stdout).toContain(text)
  })

  it('--version tells its own and that of Node', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
    const expected = { code: 0, stdout: `bearward ${version} (Node ${process.versions.node})\n`, stderr: '' }
    expect(await run(['--version'])).toEqual(expected)
  })

  it('without a command says what there is, as an error', async () => {
    const { code, stdout, stderr } = await run([])
    expect([code, stdout]).toEqual([64, ''])
    expect(stderr).toContain('Usage: bearward COMMAND')
  })

  it.each([
    ['an unknown command', ['server'], '"server"'],
    ['an unknown option in place of a command', ['--config', 'x.yaml'], '"--config"'],
    ['an unknown option of serve', ['serve', '--port', '1'], "'--port'"],
    ['an argument of serve', ['serve', 'x.yaml'], "'x.yaml'"],
    ['an option without its value', ['serve', '--config'], '--config'],
    ['an option in place of a value', ['serve', '--config', '-x'], '--config'],
    ['an empty value', ['serve', '--config', ''], 'empty'],
    ['an unknown option of check-config', ['check-config', '--online'], '"--online"'],
    ['two files', ['check-config', 'a.yaml', 'b.yaml'], 'one file'],
  ])('refuses %s in one sentence and exits with 64', async (_what, argv, named) => {
    const { code, stdout, stderr } = await run(argv)
    expect([code, stdout]).toEqual([64, ''])
    expect(lines(stderr)).toHaveLength(1)
    expect(stderr).toContain(named)
  })
})

describe('check-config', () => {
  it('is content with a good file', async () => {
    const file = writeConfig()
    const { code, stdout, stderr } = await run(['check-config', file])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toBe(`${file} is valid: 1 issuer, 0 rules, upstream ${upstream.url}.\n`)
  })

  it.each([['check-config'], ['serve', '--config']])('%s prints every problem with its line', async (...argv) => {
    const text = 'issuers:\n  - issuer: https://t.example/\nupstraem: http://127.0.0.1:1\ndrain:\n  delay: 5\n'
    const file = write('bad.yaml', text)
    const { code, stdout, stderr } = await run([...argv, file])
    expect([code, stdout]).toEqual([78, ''])
    for (const problem of ['2: issuers[0].audience: ', '3: upstraem: ', '5: drain.delay: ']) {
      expect(lines(stderr).filter((line) => line.startsWith(`${file}:${problem}`))).toHaveLength(1)
    }
    expect(stderr).toContain('Did you mean "upstream"?')
  })
})

describe('serve', () => {
  it('does not start without its file', async () => {
    const file = join(folder, 'absent.yaml')
    const { code, stdout, stderr } = await run(['serve', '--config', file])
    expect([code, stdout]).toEqual([78, ''])
    expect(lines(stderr)).toEqual([expect.stringContaining(`${file}: `)])
  })

  it('does not start when a secret cannot be read', async () => {
    const secret = join(folder, 'absent')
    const clients = { web: { client_id: 'web', client_secret: { file: secret } } }
    const changes = { helper: { clients }, target: { insecure_literal_paths: true } }
    const { code, stdout, stderr } = await run(['serve', '--config', writeConfig(changes)])
    expect(code).toBe(78)
    expect(lines(stderr)).toEqual([`${secret}: the secret file cannot be read (ENOENT).`])
    // What was logged before is not lost.
    expect(lines(stdout).map((line) => JSON.parse(line) as LogLine)).toMatchObject([{ level: 'warn' }])
  })

  it.each(['proxy', 'ops', 'helper'])('names a taken port of %s and the way out', async (name) => {
    const taken = await takePort()
    const address = `127.0.0.1:${taken.port}`
    const listen = { proxy: ANY_PORT, ops: ANY_PORT, helper: ANY_PORT, [name]: address }
    const helper = { clients: { web: { client_id: 'web', client_authentication: 'none' } } }
    const { code, stderr } = await run(['serve', '--config', writeConfig({ listen, helper })])
    expect(code).toBe(1)
    expect(lines(stderr)).toEqual([
      expect.stringMatching(`^cannot listen on ${address} \\(${name}\\): .+listen.${name}`),
    ])
    await taken.release()
  })

  it('needs nothing but the environment', async () => {
    const command = bearward(['serve'], {
      BEARWARD_ISSUER: issuer.issuer,
      BEARWARD_AUDIENCE: issuer.audience,
      BEARWARD_UPSTREAM: upstream.url,
      BEARWARD_PROXY_LISTEN: ANY_PORT,
      BEARWARD_OPS_LISTEN: ANY_PORT,
      BEARWARD_HELPER_LISTEN: ANY_PORT,
    })
    const { call } = await whenReady(command)
    const response = await call()
    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({ headers: { 'x-auth-subject': 'user-7' } })
    command.child.kill('SIGINT')
    expect(await command.ended).toBe(0)
  })

  it('says everything as JSON on standard output, nothing else', async () => {
    const { command, call, log } = await serve(writeConfig())
    expect((await call()).status).toBe(200)
    command.child.kill('SIGTERM')
    expect(await command.ended).toBe(0)
    expect(command.stderr()).toBe('')
    expect(log().map(({ msg }) => msg)).toEqual(['started', 'keys loaded', 'request', 'draining', 'stopped'])
    for (const line of log()) {
      expect(line).toMatchObject({ level: 'info', time: expect.stringMatching(/^\d{4}-.+Z$/) as string })
    }
  })

  it('goes on serving after SIGTERM for drain.delay, not ready any more', async () => {
    const { command, call, readyz } = await serve(writeConfig({ drain: { delay: '4s' } }))
    const signalledMs = performance.now()
    command.child.kill('SIGTERM')
    await eventually(async () => (await readyz()) === 503)
    const response = await call()
    expect(response.status).toBe(200)
    expect(response.headers.get('connection')).toBe('close')
    await response.body?.cancel()
    expect(await command.ended).toBe(0)
    expect(performance.now() - signalledMs).toBeGreaterThan(3_900)
  })

  it('does not wait on SIGINT', async () => {
    const { command } = await serve(writeConfig({ drain: { delay: '5m' } }))
    command.child.kill('SIGINT')
    expect(await command.ended).toBe(0)
  })

  it('lets a request in flight finish', async () => {
    const answer = Promise.withResolvers<void>()
    const slow = await startUpstream((_request, response) => void answer.promise.then(() => response.end('late')))
    const { command, call } = await serve(writeConfig({ upstream: slow.url }))
    const response = call()
    await eventually(() => slow.requests.length === 1)
    command.child.kill('SIGTERM')
    await command.until(() => command.stdout().includes('"msg":"draining"'))
    answer.resolve()
    expect(await (await response).text()).toBe('late')
    expect(await command.ended).toBe(0)
    await slow.stop()
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('stops at once when %s comes second', async (second) => {
    const silent = await startUpstream(() => undefined)
    const { command, call, log } = await serve(writeConfig({ upstream: silent.url, drain: { timeout: '1h' } }))
    const cut = expect(call()).rejects.toThrow('fetch failed')
    await eventually(() => silent.requests.length === 1)
    command.child.kill('SIGTERM')
    await command.until(() => command.stdout().includes('"msg":"draining"'))
    command.child.kill(second)
    expect(await command.ended).toBe(1)
    expect(log().at(-1)).toMatchObject({ level: 'warn', msg: 'second signal: stopping at once' })
    await cut
    await silent.stop()
  })
})

describe('the guard before npm start and npm test', () => {
  const GUARD = 'test/dev/check-node.mjs'

  it('is content with this Node', async () => {
    const command = startNode([GUARD])
    expect(await command.ended).toBe(0)
    expect(command.stdout() + command.stderr()).toBe('')
  })

  it('says in one sentence that a Node is too old', (context) => {
    const old = findOldNode()
    if (old === undefined) return context.skip('there is no Node older than 24.15 on PATH')
    const { status, stdout, stderr } = spawnSync(old.path, [GUARD], { encoding: 'utf8' })
    expect([status, stdout]).toEqual([1, ''])
    expect(lines(stderr)).toEqual([expect.stringContaining(`this is ${old.version}.`)])
    expect(stderr).toContain('npm ci')
  })
})

/** A Node on PATH, beside the one in node_modules, that cannot run this. */
function findOldNode(): { readonly path: string; readonly version: string } | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((directory) => join(directory, 'node'))
    .filter((path) => existsSync(path))
    .map((path) => ({ path, version: spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout.trim().slice(1) }))
    .find(({ version }) => {
      const [major = 0, minor = 0] = version.split('.').map(Number)
      return major > 0 && (major < 24 || (major === 24 && minor < 15))
    })
}
