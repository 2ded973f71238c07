import { execFile, spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startAuth0, type Auth0 } from '../fakes/auth0.ts'
import { EXAMPLES, startHelperExample } from '../fakes/helper-example.ts'
import { areInstalled } from '../fakes/programs.ts'
import { stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'
import { startWorkos, type Workos } from '../fakes/workos.ts'

/** The commands of helper.md, as they stand there, in one shell after the other. */
const run = promisify(execFile)
const isReady = areInstalled('curl', 'jq', 'openssl')
const test = isReady ? it : it.skip
const PAGE = readFileSync(join(EXAMPLES, 'helper.md'), 'utf8')

/** The commands below a heading. */
function commands(heading: string): string[] {
  const section = PAGE.split(/^## /m).find((text) => text.startsWith(heading)) ?? ''
  const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] as string)
  if (blocks.length === 0) throw new Error(`no commands below ${heading}`)
  return blocks
}

let upstream: FakeUpstream
let auth0: Auth0
let workos: Workos
const sidecars = new Map<string, FakeSidecar>()
let folder = ''

beforeAll(async () => {
  upstream = await startUpstream()
  auth0 = await startAuth0()
  workos = await startWorkos()
  const common = { upstream: upstream.url }
  const [first, second] = await Promise.all([
    startHelperExample({ ...common, name: 'auth0-helper', issuer: auth0.issuer, clients: auth0 }),
    startHelperExample({
      ...{ ...common, name: 'workos-helper', issuer: workos.issuer, clients: workos },
      audience: ['https://api.example.com', workos.environmentId],
    }),
  ])
  sidecars.set('Auth0', first)
  sidecars.set('WorkOS', second)
})
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  copyFileSync(join(EXAMPLES, 'device-login.sh'), join(folder, 'device-login.sh'))
  return () => rmSync(folder, { recursive: true })
})
afterAll(async () => {
  await stopSidecars()
  await Promise.all([auth0.server.stop(), workos.server.stop(), upstream.stop()])
})

type Provider = 'Auth0' | 'WorkOS'

/** What the reader fills in. */
function variables(provider: Provider): NodeJS.ProcessEnv {
  const { web, native, worker, server } = provider === 'Auth0' ? auth0 : workos
  const own =
    provider === 'Auth0'
      ? {
          AUTHORIZE: `${server.origin}/authorize`,
          TARGET: 'audience=https://api.example.com',
          REDIRECT_URI: 'https://tenant.eu.auth0.com/mobile',
          MACHINE_TARGET: 'audience=https://api.example.com',
          AUDIENCE: 'https://api.example.com',
        }
      : {
          AUTHORIZE: `${server.origin}/oauth2/authorize`,
          TARGET: 'resource=https://api.example.com',
          REDIRECT_URI: 'com.example.app://callback',
          MACHINE_TARGET: 'scope=',
          RESOURCE: 'https://api.example.com',
        }
  return {
    PATH: process.env['PATH'],
    HELPER: sidecars.get(provider)?.helper,
    WEB_CLIENT_ID: web.clientId,
    NATIVE_CLIENT_ID: native.clientId,
    WORKER_CLIENT_ID: worker.clientId,
    ...own,
  }
}

const shell = (script: string, provider: Provider) =>
  run('sh', ['-euc', script], { cwd: folder, env: variables(provider) })

async function expectGood(file: string, provider: Provider): Promise<Record<string, unknown>> {
  const tokens = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Record<string, unknown>
  const headers = { authorization: `Bearer ${tokens['access_token'] as string}` }
  expect((await fetch(`${sidecars.get(provider)?.proxy}/a`, { headers })).status).toBe(200)
  return tokens
}

/** What the browser of the user does: follows the address, and hands the code to the application. */
const VISIT = `CODE=$(curl --silent --dump-header - --output /dev/null "$LOGIN" | sed -n 's/^location:.*[?&]code=\\([^&\\r]*\\).*/\\1/Ip')`

describe.each<Provider>(['Auth0', 'WorkOS'])('with %s', (provider) => {
  test('a command line signs a user in', { timeout: 60_000 }, async () => {
    const [script = ''] = commands('A command line')
    const child = spawn('sh', ['-euc', script], { cwd: folder, env: variables(provider) })
    const ended = new Promise((resolve) => child.on('close', resolve))
    let shown = ''
    child.stderr.on('data', (chunk: Buffer) => (shown += chunk.toString()))
    await expect.poll(() => shown, { timeout: 10_000 }).toMatch(/^Open http.* and enter .+\n/)
    const userCode = /enter (\S+)/.exec(shown)?.[1] ?? ''
    if (provider === 'Auth0') auth0.approve(userCode)
    else workos.approve(userCode)
    expect(await ended).toBe(0)
    expect(await expectGood('tokens.json', provider)).toHaveProperty('refresh_token')
  })

  test('a command line is told when the user declines', { timeout: 60_000 }, async () => {
    const [script = ''] = commands('A command line')
    const child = spawn('sh', ['-euc', script], { cwd: folder, env: variables(provider) })
    const ended = new Promise((resolve) => child.on('close', resolve))
    let shown = ''
    child.stderr.on('data', (chunk: Buffer) => (shown += chunk.toString()))
    await expect.poll(() => /enter (\S+)/.exec(shown)?.[1], { timeout: 10_000 }).toBeDefined()
    const { devices } = provider === 'Auth0' ? auth0 : workos
    devices.deny(/enter (\S+)/.exec(shown)?.[1] ?? '')
    expect(await ended).toBe(1)
    expect(shown).toContain('"access_denied"')
  })

  test('a native app signs a user in; its session is refreshed and ended', async () => {
    const [begin = '', exchange = ''] = commands('The backend of a native app')
    const [refresh = ''] = commands('A web backend')
    const [revoke = ''] = commands('Signing out')
    await shell([begin, VISIT, exchange].join('\n'), provider)
    const first = await expectGood('tokens.json', provider)
    // The application whose session it is.
    const own = (script: string) => script.replaceAll('$WEB_CLIENT_ID', '$NATIVE_CLIENT_ID')
    await shell(own(refresh), provider)
    const second = await expectGood('new-tokens.json', provider)
    expect(second['refresh_token']).not.toBe(first['refresh_token'])
    if (provider === 'WorkOS') {
      await expect(shell(own(revoke), provider)).rejects.toThrow()
      return
    }
    await shell(own(revoke), provider)
    expect(auth0.refreshTokens.isAlive(second['refresh_token'] as string)).toBe(false)
  })

  test('a machine gets tokens of its own', async () => {
    await shell(commands('A machine').join('\n'), provider)
    await expectGood('machine-tokens.json', provider)
  })
})

test('a session of another user is noticed by the hint', async () => {
  const [begin = '', exchange = ''] = commands('The backend of a native app')
  await shell([begin, VISIT, exchange].join('\n'), 'Auth0')
  const [refresh = ''] = commands('A web backend')
  const other = `jq '.id_token = ("e30." + ("{\\"iss\\":\\"x\\",\\"sub\\":\\"y\\"}" | @base64) + ".x")' tokens.json >t && mv t tokens.json`
  await expect(
    shell([other, refresh.replaceAll('$WEB_CLIENT_ID', '$NATIVE_CLIENT_ID')].join('\n'), 'Auth0'),
  ).rejects.toThrow(/502/)
})
