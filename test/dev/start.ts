/**
 * Run by `npm start`: bearward between an authorization server and a sample API, all on this machine, and lines to paste
 * into a shell that show what it does.
 */
import { createServer } from 'node:net'
import { parseArgs } from 'node:util'
import type { AuthorizationServer } from '../fakes/authorization-server.ts'
import { spawnBearward, type Bearward } from './bearward.ts'
import { startSampleApi } from './sample-api.ts'
import { renderWalkthrough, SERVICE_CLIENT, walkthrough, type Ports } from './walkthrough.ts'

interface Place {
  /** Its name for people. */
  readonly what: string
  readonly does: string
  /** Unless the flag says otherwise. */
  readonly port: number
}

/** What wants a port, in the order it is listed for the user. The flag that chooses it is `--NAME-port`. */
const PLACES = {
  proxy: { what: 'proxy', does: 'bearward: verifies tokens in front of the sample API', port: 8080 },
  helper: { what: 'helper', does: 'bearward: spends refresh tokens, so that callers need no secret', port: 8181 },
  ops: { what: 'ops', does: 'bearward: /livez /readyz /startupz /metrics', port: 9090 },
  api: { what: 'sample API', does: 'echoes what reaches it', port: 3000 },
  issuer: { what: 'authorization server', does: 'issues tokens; for development only', port: 9400 },
} as const satisfies Record<keyof Ports, Place>
type PlaceName = keyof typeof PLACES
const NAMES = Object.keys(PLACES) as PlaceName[]

const HELP = `Runs bearward on this machine, between an authorization server and a sample API, until Ctrl-C.

Usage: npm start -- [OPTIONS]

Options:
${NAMES.map((name) => `  ${`--${name}-port PORT`.padEnd(20)} Of the ${PLACES[name].what}; default ${PLACES[name].port}.`).join('\n')}
  --help               This text.

Port 0 picks any free one. Exit codes: 0 stopped, 1 could not start or bearward ended by itself, 64 wrong usage.
`

const PATIENCE_MS = 10_000
const ONE_KEYSTROKE_MS = 1_000

/** Where bearward finds the secret of the client `web`. */
const SECRET_VARIABLE = 'WEB_CLIENT_SECRET'

/** It cannot go on; the message is for the user. */
class StartError extends Error {
  readonly exitCode: number

  constructor(message: string, exitCode = 1) {
    super(message)
    this.exitCode = exitCode
  }
}

let bearward: Bearward | undefined
let stopping = false
let signalledMs = -Infinity
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop(signal))
process.on('exit', () => bearward?.discard())
// Whoever reads along may leave; what runs goes on until it is told to stop.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

try {
  await run(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof StartError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = error.exitCode
}
process.exit()

/** Everything but bearward ends with this process. A second signal makes bearward stop at once, as it does by itself. */
function stop(signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP'): void {
  stopping = true
  if (bearward === undefined) process.exit(0)
  // A Ctrl-C arrives twice: from the terminal, and from npm, which passes on what it got from the terminal itself.
  const sinceLastMs = performance.now() - signalledMs
  signalledMs = performance.now()
  if (sinceLastMs < ONE_KEYSTROKE_MS) return
  bearward.signal(signal === 'SIGHUP' ? 'SIGTERM' : signal)
}

async function run(argv: string[]): Promise<void> {
  const wanted = readPorts(argv)
  if (wanted === undefined) return void process.stdout.write(HELP)
  for (const name of ['proxy', 'helper', 'ops'] as const) await occupy(name, wanted[name], tryPort)
  // Loaded late: --help, a wrong flag and a taken port need not wait for it.
  const { startAuthorizationServer } = await import('../fakes/authorization-server.ts')
  const issuer = await occupy('issuer', wanted.issuer, (port) =>
    startAuthorizationServer({ port, development: true, serviceSecret: SERVICE_CLIENT.secret }),
  )
  const api = await occupy('api', wanted.api, startSampleApi)
  const ports = { ...wanted, issuer: issuer.port, api: api.port }

  bearward = spawnBearward(toConfig(ports, issuer), { [SECRET_VARIABLE]: issuer.clients.web.secret })
  // Whoever has waited for that long is told what for.
  const patience = setTimeout(() => bearward?.showLog(), PATIENCE_MS)
  const bound = await bearward.ready()
  clearTimeout(patience)
  if (bound !== undefined && !stopping) {
    process.stdout.write(introduce({ ...ports, ...bound }))
    bearward.showLog()
  }
  const end = await bearward.ended
  bearward.showLog()
  if (!stopping) throw new StartError(`bearward ended by itself, ${end.how}; its own words are above.`)
  if (!end.clean) throw new StartError(`bearward did not stop cleanly: it ended ${end.how}.`)
}

/** @returns `undefined` when help was asked for */
function readPorts(argv: string[]): Ports | undefined {
  const values = parseFlags(argv)
  if (values['help'] === true) return undefined
  const ports = Object.fromEntries(NAMES.map((name) => [name, readPort(name, values)])) as Record<PlaceName, number>
  for (const [i, name] of NAMES.entries()) {
    const other = NAMES.slice(0, i).find((before) => ports[before] === ports[name] && ports[name] !== 0)
    if (other !== undefined) throw usage(`--${other}-port and --${name}-port are both ${ports[name]}`)
  }
  return ports
}

type Flags = Readonly<Record<string, string | boolean | undefined>>

function parseFlags(args: string[]): Flags {
  const ports = NAMES.map((name) => [`${name}-port`, { type: 'string' }] as const)
  try {
    return parseArgs({ args, options: { ...Object.fromEntries(ports), help: { type: 'boolean' } } }).values
  } catch (error) {
    throw usage((error as Error).message.split(/\.\s/, 1)[0] as string)
  }
}

function readPort(name: PlaceName, values: Flags): number {
  const text = String(values[`${name}-port`] ?? PLACES[name].port)
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text)
  throw usage(`--${name}-port takes a number from 0 to 65535, not "${text}"`)
}

function usage(fault: string): StartError {
  return new StartError(`${fault}. See "npm start -- --help".`, 64)
}

/** Opens something on a port; when that fails, says which port, what wanted it and how to choose another. */
async function occupy<T>(name: PlaceName, port: number, open: (port: number) => Promise<T>): Promise<T> {
  try {
    return await open(port)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error
    const why = code === 'EADDRINUSE' ? 'is taken by another process' : 'needs a privilege that this process lacks'
    const way = `choose another with: npm start -- --${name}-port ${port > 1024 && port < 65_535 ? port + 1 : 0}`
    throw new StartError(`Port ${port} for the ${PLACES[name].what} ${why}; ${way}`)
  }
}

/** bearward binds its ports itself; trying them first gives the user a sentence with the flag in it. */
function tryPort(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => server.close(() => resolve()))
  })
}

/** The configuration as an operator would write it. */
function toConfig(ports: Ports, { issuer, audience, clients }: AuthorizationServer): object {
  return {
    issuers: [{ name: 'development', issuer, audience, algorithms: ['RS256'] }],
    upstream: `http://127.0.0.1:${ports.api}`,
    listen: {
      proxy: `127.0.0.1:${ports.proxy}`,
      ops: `127.0.0.1:${ports.ops}`,
      helper: `127.0.0.1:${ports.helper}`,
    },
    rules: [{ name: 'public', prefix: ['/public'], access: 'public' }],
    identity: {
      headers: [
        { header: 'x-auth-org', claim: 'org_id' },
        { header: 'x-auth-roles', claim: 'https://bearward.test/roles', format: 'csv' },
      ],
    },
    helper: {
      clients: {
        web: { client_id: clients.web.id, client_secret: { env: SECRET_VARIABLE } },
        device: { client_id: 'device', client_authentication: 'none', grants: ['device_code', 'refresh_token'] },
      },
    },
    drain: { delay: '0s' },
  }
}

function introduce(ports: Ports): string {
  const rows = NAMES.map((name) => {
    const { what, does } = PLACES[name]
    return `#   ${what.padEnd(21)} http://127.0.0.1:${String(ports[name]).padEnd(6)} ${does}`
  })
  return `
# Everything runs, on this machine alone:
#
${rows.join('\n')}
#
# Paste these lines into another terminal, one after the other. Ctrl-C here stops everything.

${renderWalkthrough(walkthrough(ports))}
# From here on: the log of bearward, one line a request.

`
}
