import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { endCommands, eventually, MAIN, startNode, takePort } from '../cli/command.ts'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt } from '../fakes/signer.ts'
import { startCallers } from './callers.ts'
import { terminatePod, type Container, type End } from './kubelet.ts'
import { startServing } from './serving.ts'

/** How long a cluster goes on sending requests to a pod that ends. */
const LAG_MS = 1_500

/** A pod by what of it matters at its end. */
interface Form {
  readonly isNative: boolean
  /** The preStop sleep of the app; 0 for none. */
  readonly appSleepMs: number
  /** Whether the preStop hook of the sidecar is `bearward drain`. */
  readonly drains: boolean
  /** An app that does not mind SIGTERM ends at once. */
  readonly appEnds: 'at once' | 'when done'
}
/** The manifests of deploy/, at two fifths of their time. */
const NATIVE: Form = { isNative: true, appSleepMs: 2_000, drains: true, appEnds: 'when done' }
const CLASSIC: Form = { isNative: false, appSleepMs: 2_400, drains: false, appEnds: 'when done' }
const DELAY_MS = 2_000

const key = createSigningKey('ES256')
let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bearward-rollout-'))
  writeFileSync(join(folder, 'jwks.json'), JSON.stringify({ keys: [key.jwk] }))
})
afterEach(endCommands)
afterAll(() => rmSync(folder, { recursive: true }))

const wait = (ms: number) => new Promise((done) => setTimeout(done, ms))

interface Pod {
  readonly origin: string
  /** Ends it, and tells how: the sidecar first. */
  terminate(): Promise<readonly End[]>
}

/** Starts a pod in the order of a kubelet, and waits until it is ready: both containers, by their own probes. */
async function startPod({ isNative, appSleepMs, drains, appEnds }: Form): Promise<Pod> {
  const { port, release } = await takePort()
  await release()
  const file = join(folder, `${port}.yaml`)
  const config = {
    listen: { proxy: '127.0.0.1:0', ops: '127.0.0.1:0' },
    issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_file: './jwks.json' }],
    upstream: `http://127.0.0.1:${port}`,
    rules: [{ name: 'health', exact: ['/healthz'], methods: ['GET'], access: 'public' }],
    drain: { delay: `${DELAY_MS}ms` },
    telemetry: { access_log: false },
  }
  writeFileSync(file, stringify(config))
  const startApp = () => startNode(['test/deploy/rollout-app.ts'], { env: { PORT: String(port), ENDS: appEnds } })
  const started = isNative ? undefined : startApp()
  const serving = await startServing(['--config', file])
  // A native sidecar answers its startup probe before there is an app.
  expect((await fetch(`${serving.ops}/startupz`)).status).toBe(200)
  const app = started ?? startApp()
  await serving.ready()
  await eventually(async () => (await fetch(`${serving.proxy}/healthz`)).status === 200)

  const drain = () => startNode([MAIN, 'drain', '--ops', new URL(serving.ops).host]).ended
  const containers: Container[] = [
    { command: serving.command, isSidecar: isNative, ...(drains ? { preStop: drain } : {}) },
    { command: app, ...(appSleepMs > 0 ? { preStop: () => wait(appSleepMs) } : {}) },
  ]
  return { origin: serving.proxy, terminate: () => terminatePod(containers) }
}

/** Replaces a pod by another, several times, under load: the next is ready before the one before is deleted. */
async function rollOut(form: Form, times: number) {
  let pod = await startPod(form)
  const callers = startCallers([pod.origin], signJwt(key, goodClaims()))
  const ends: End[] = []
  for (let i = 0; i < times; i += 1) {
    const next = await startPod(form)
    callers.endpoints.add(next.origin)
    const removed = wait(LAG_MS).then(() => callers.endpoints.delete(pod.origin))
    ends.push(...(await pod.terminate()))
    await removed
    pod = next
  }
  const result = await callers.stop()
  ends.push(...(await pod.terminate()))
  return { ...result, ends }
}

const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0)

describe('a rollout under load', () => {
  it.each([
    ['of pods with a native sidecar', NATIVE],
    ['of pods with a classic sidecar', CLASSIC],
  ])(
    '%s loses no request, and every container exits with 0',
    async (_what, form) => {
      const { answered, failures, ends } = await rollOut(form, 3)
      expect(failures).toEqual({})
      expect(answered).toBeGreaterThan(200)
      expect(ends).toEqual(Array<number>(8).fill(0))
    },
    120_000,
  )

  // That the replay notices losses, and what the hooks are for.
  it.each([
    ['of pods with a native sidecar', { ...NATIVE, appSleepMs: 0, drains: false, appEnds: 'at once' as const }],
    ['of pods with a classic sidecar', { ...CLASSIC, appSleepMs: 0, appEnds: 'at once' as const }],
  ])(
    '%s loses some without hooks, when the app ends at once',
    async (what, form) => {
      const { answered, failures } = await rollOut(form, 1)
      expect(sum(failures)).toBeGreaterThan(0)
      console.log(`a rollout ${what}, without hooks: lost ${sum(failures)} of ${answered}`, failures)
    },
    60_000,
  )
})

describe('a Job', () => {
  it('ends when its work is done, although the sidecar would serve on', async () => {
    const pod = await startPod(NATIVE)
    const script = `const { status } = await fetch('${pod.origin}/healthz'); process.exit(status === 200 ? 0 : 1)`
    const work = startNode(['--input-type=module', '-e', script])
    expect(await work.ended).toBe(0)
    expect(await pod.terminate()).toEqual([0, 0])
  }, 30_000)
})
