import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { LoadResult } from './load.ts'
import { BenchError, runLoad, startParticipant, type Participant } from './process.ts'
import type { Row } from './report.ts'
import { signTokens, type TokenFiles } from './tokens.ts'

export interface MeasureOptions {
  /** Length of each phase in seconds. */
  readonly duration: number
  /** Requests a second of the phase that measures latency. */
  readonly rate: number
  /** The file to run as bearward. */
  readonly main: string
  /** For tokens and logs. */
  readonly folder: string
  /** Told what is being done. */
  readonly onStep: (text: string) => void
}

const CONNECTIONS = 64
const WARM_TOKENS = 500
/** So many more than are remembered that hardly one is; fewer for a run so short that it does not get through them. */
const MOST_COLD_TOKENS = 12_000
const COLD_REMEMBERED = '100'
const COLD_TOKENS_PER_SECOND = 15_000
const WARM_UP_LIMIT_S = 1
const READY_POLL_MS = 20

const BARE = 'bare proxy'
const scriptIn = (name: string) => join(import.meta.dirname, name)

/** Measures everything, one participant after the other. */
export async function measureAll(options: MeasureOptions): Promise<Row[]> {
  const { duration, folder, onStep } = options
  onStep('signing tokens')
  const phases = 2 * duration + Math.min(duration, WARM_UP_LIMIT_S)
  const counts = { warm: WARM_TOKENS, cold: Math.min(MOST_COLD_TOKENS, Math.ceil(COLD_TOKENS_PER_SECOND * phases)) }
  const files = { RS256: signTokens('RS256', folder, counts), ES256: signTokens('ES256', folder, counts) }
  const jwksUrl = await serveJwks(Object.values(files))

  let count = 0
  const start = (command: string[], env: Record<string, string>) =>
    startParticipant(command, env, join(folder, `output-${(count += 1)}.log`))
  const backend = await start([process.execPath, scriptIn('backend.ts')], {})
  const measured: Measured[] = []
  const compare = async (name: string, tokens: string, starting: Promise<Participant>) => {
    onStep(name)
    const participant = await starting
    measured.push(await measure(name, participant, tokens, options))
    await participant.stop()
  }
  const upstream = `http://127.0.0.1:${backend.port}`
  const direct = { ...backend, cpuMicroseconds: () => undefined, residentMegabytes: () => undefined }
  await compare('direct call', files.RS256.warm, Promise.resolve({ ...direct, stop: () => Promise.resolve() }))

  const bare = { NODE_OPTIONS: '--max-semi-space-size=2', UPSTREAM: upstream }
  await compare(BARE, files.RS256.warm, start([process.execPath, scriptIn('bare.ts')], bare))
  const sidecar = { UPSTREAM: upstream, JWKS_URL: jwksUrl, PORT: '0', MAIN: options.main, TMPDIR: folder }
  for (const tokens of ['warm', 'cold'] as const) {
    for (const alg of ['RS256', 'ES256'] as const) {
      const starting = start(['bash', scriptIn('serve.sh')], {
        ...{ ...sidecar, ALG: alg },
        ...(tokens === 'cold' && { REMEMBERED: COLD_REMEMBERED }),
      })
      await compare(`bearward ${alg} ${tokens}`, files[alg][tokens], starting)
    }
  }
  await backend.stop()
  return withRatios(measured)
}

type Measured = Omit<Row, 'timesBare'>

function withRatios(rows: readonly Measured[]): Row[] {
  const bare = rows.find(({ name }) => name === BARE)?.cpuPerRequest
  return rows.map((row) => ({ ...row, timesBare: bare && row.cpuPerRequest && row.cpuPerRequest / bare }))
}

function serveJwks(files: readonly TokenFiles[]): Promise<string> {
  const body = JSON.stringify({ keys: files.map(({ jwk }) => jwk) })
  const server = createServer((_request, response) => response.end(body))
  return new Promise((done) => {
    server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`))
  })
}

async function measure(
  name: string,
  participant: Participant,
  tokens: string,
  { duration, rate }: MeasureOptions,
): Promise<Measured> {
  let firstToken = 0
  const load = async (seconds: number, pace: { rate?: number } = {}): Promise<LoadResult> => {
    const { port } = participant
    const result = await runLoad({ port, tokens, firstToken, connections: CONNECTIONS, seconds, ...pace })
    if (result.refused > 0) throw new BenchError(`${name}: ${result.refused} of ${result.requests} requests failed.`)
    firstToken += result.requests
    return result
  }
  await whenReady(participant)
  await load(Math.min(duration, WARM_UP_LIMIT_S))
  const before = { hits: await readHits(participant), cpu: participant.cpuMicroseconds() }
  const fast = await load(duration)
  const after = { hits: await readHits(participant), cpu: participant.cpuMicroseconds() }
  const perRequest = (figure: 'hits' | 'cpu') => {
    const [first, last] = [before[figure], after[figure]]
    return first === undefined || last === undefined ? undefined : (last - first) / fast.requests
  }
  const megabytes = participant.residentMegabytes()
  const { p50, p99, p999 } = await load(duration, { rate })
  return {
    name,
    requestsPerSecond: fast.requests / fast.seconds,
    cpuPerRequest: perRequest('cpu'),
    cacheHits: perRequest('hits'),
    megabytes,
    ...{ p50, p99, p999 },
  }
}

/** Waits until bearward has the keys; the others are ready once they listen. */
async function whenReady({ opsPort }: Participant): Promise<void> {
  if (opsPort === undefined) return
  while ((await fetch(`http://127.0.0.1:${opsPort}/readyz`)).status !== 200) await setTimeout(READY_POLL_MS)
}

/** How many tokens had been verified before, by bearward's own count. */
async function readHits({ opsPort }: Participant): Promise<number | undefined> {
  if (opsPort === undefined) return undefined
  const text = await (await fetch(`http://127.0.0.1:${opsPort}/metrics`)).text()
  if (!text.includes('bearward_token_cache_total')) throw new BenchError('The metrics do not count known tokens.')
  return Number(/^bearward_token_cache_total\{result="hit"\} (\d+)$/m.exec(text)?.[1] ?? 0)
}
