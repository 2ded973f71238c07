/**
 * Run by `npm run bench:flood`: what callers with valid tokens wait, by themselves and beside a flood of tokens whose `kid` no
 * issuer publishes. Pairs of phases, one after the other, in one process; the ratio is what counts.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSigningKey, signJwt } from '../fakes/signer.ts'
import { runLoad, startParticipant } from './process.ts'
import { benchClaims } from './tokens.ts'

const PAIRS = 6
const SECONDS = 6
const VALID_PER_SECOND = 500
const FORGED_PER_SECOND = 1_667
const FORGED_TOKENS = 5_000

const folder = mkdtempSync(join(tmpdir(), 'bearward-flood-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const scriptIn = (name: string) => join(import.meta.dirname, name)

const key = createSigningKey('RS256')
const forger = createSigningKey('ES256')
const valid = write(
  'valid.txt',
  Array.from({ length: 500 }, (_, i) => signJwt(key, benchClaims(`valid-${i}`))),
)
const forged = write(
  'forged.txt',
  // Signed by somebody else, which nobody finds out: there is no such key to check it with.
  Array.from({ length: FORGED_TOKENS }, (_, i) =>
    signJwt(forger, benchClaims(`forged-${i}`), { kid: randomBytes(8).toString('hex'), alg: 'RS256' }),
  ),
)

function write(name: string, tokens: readonly string[]): string {
  writeFileSync(join(folder, name), tokens.join('\n'))
  return join(folder, name)
}

let fetches = 0
const keys = createServer((_request, response) => {
  fetches += 1
  response.end(JSON.stringify({ keys: [key.jwk] }))
})
await new Promise<void>((done) => keys.listen(0, '127.0.0.1', done))
const jwksUrl = `http://127.0.0.1:${(keys.address() as AddressInfo).port}/jwks.json`
const backend = await startParticipant([process.execPath, scriptIn('backend.ts')], {}, join(folder, 'backend.log'))
const sidecar = await startParticipant(
  ['bash', scriptIn('serve.sh')],
  {
    ...{ UPSTREAM: `http://127.0.0.1:${backend.port}`, JWKS_URL: jwksUrl, PORT: '0', ALG: 'RS256', TMPDIR: folder },
    MAIN: resolve(import.meta.dirname, '../../src/main.ts'),
  },
  join(folder, 'sidecar.log'),
)
const { port } = sidecar
await sleep(1_000)
const load = (tokens: string, rate: number, seconds: number) =>
  runLoad({ port, tokens, firstToken: 0, connections: 32, seconds, rate })
await load(valid, VALID_PER_SECOND, 3)

const ratios: number[] = []
process.stdout.write('pair   alone p50, p99, p99.9 ms     beside the flood              ratio of p99\n')
for (let pair = 1; pair <= PAIRS; pair += 1) {
  // Either comes first as often as the other.
  const order = pair % 2 === 0 ? (['alone', 'beside'] as const) : (['beside', 'alone'] as const)
  const results: Partial<Record<(typeof order)[number], Awaited<ReturnType<typeof load>>>> = {}
  for (const phase of order) {
    const flood = phase === 'beside' ? load(forged, FORGED_PER_SECOND, SECONDS + 1) : undefined
    if (flood !== undefined) await sleep(500)
    results[phase] = await load(valid, VALID_PER_SECOND, SECONDS)
    const answered = await flood
    if (answered !== undefined && answered.refused !== answered.requests) throw new Error('a forged token was accepted')
    if (results[phase].refused > 0) throw new Error('a valid token was refused')
  }
  const { alone, beside } = results as Required<typeof results>
  const show = ({ p50, p99, p999 }: typeof alone) => [p50, p99, p999].map((ms) => ms.toFixed(2).padStart(7)).join(' ')
  ratios.push(beside.p99 / alone.p99)
  process.stdout.write(`${pair}   ${show(alone)}       ${show(beside)}       ${ratios.at(-1)?.toFixed(2)}\n`)
}
const sorted = ratios.toSorted((a, b) => a - b)
process.stdout.write(
  `median ratio ${((sorted[2] as number) / 2 + (sorted[3] as number) / 2).toFixed(2)}; keys were fetched ${fetches} times\n`,
)
await Promise.all([sidecar.stop(), backend.stop()])
process.exit()
