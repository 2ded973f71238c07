import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { endCommands } from '../cli/command.ts'
import { startServing, type Serving } from '../deploy/serving.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { startBalancer, type Balancer, type Target } from '../fakes/balancer.ts'
import { createKeepAliveCaller } from '../fakes/http1-caller.ts'
import { record, startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const RESTARTS = 20
const CALLERS = 20
/** Of all callers together. */
const REQUESTS_PER_SECOND = 200
const SIDECARS = 2

let issuer: AuthorizationServer
let upstream: FakeUpstream
let balancer: Balancer
const folder = mkdtempSync(join(tmpdir(), 'bearward-rolling-'))

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((request, response, recorded) =>
    record(request, recorded, () => response.end(recorded.bodySha256)),
  )
  balancer = await startBalancer()
})
afterAll(async () => {
  await endCommands()
  balancer.stop()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

/** One more sidecar, in the balancer once it is ready. */
async function startBehind(): Promise<{ readonly serving: Serving; readonly target: Target }> {
  const file = join(folder, 'bearward.yaml')
  const config = {
    issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
    upstream: upstream.url,
    listen: { proxy: '127.0.0.1:0', ops: '127.0.0.1:0' },
    drain: { delay: '600ms', timeout: '10s' },
  }
  writeFileSync(file, stringify(config))
  const serving = await startServing(['--config', file])
  const target = { port: serving.proxyPort, ops: serving.ops }
  await balancer.add(target)
  return { serving, target }
}

describe('rolling restarts', () => {
  it(
    `${RESTARTS} of them under load, with bodies and on kept connections: no request fails`,
    { timeout: 180_000 },
    async () => {
      const running = await Promise.all(Array.from({ length: SIDECARS }, startBehind))
      const token = issuer.signAccessToken()
      const failures: string[] = []
      const reused = { connections: 0 }
      let served = 0
      let over = false

      const work = async (number: number) => {
        const caller = createKeepAliveCaller(balancer.origin, token)
        const everyMs = (1000 * CALLERS) / REQUESTS_PER_SECOND
        let dueMs = performance.now() + (everyMs * number) / CALLERS
        for (let i = 0; !over; i += 1, dueMs += everyMs) {
          await sleep(Math.max(0, dueMs - performance.now()))
          const body = i % 2 === 0 ? undefined : randomBytes(1_000 + 100 * number)
          const expected = createHash('sha256')
            .update(body ?? '')
            .digest('hex')
          try {
            const { status, text, headers } = await caller.send(`/orders/${number}/${i}`, body)
            if (status === 200 && text === expected) served += 1
            else failures.push(`${status} ${text}`)
            if (headers.connection !== 'close') reused.connections += 1
          } catch (error) {
            failures.push(`${(error as NodeJS.ErrnoException).code} after ${served}`)
          }
        }
        caller.close()
      }
      const startedMs = performance.now()
      const load = Promise.all(Array.from({ length: CALLERS }, (_, number) => work(number)))

      const endings: Promise<unknown>[] = []
      for (let i = 0; i < RESTARTS; i += 1) {
        running.push(await startBehind())
        const { serving, target } = running.shift() as (typeof running)[number]
        serving.command.child.kill('SIGTERM')
        endings.push(
          serving.command.ended.then((how) => {
            balancer.remove(target)
            return [how, serving.log().at(-1)?.['requests_cut']]
          }),
        )
      }
      expect(await Promise.all(endings)).toEqual(Array(RESTARTS).fill([0, 0]))
      over = true
      await load
      const rate = served / ((performance.now() - startedMs) / 1000)
      console.log(`${served} requests in ${RESTARTS} restarts, ${rate.toFixed(0)} a second, ${failures.length} failed`)
      expect(failures).toEqual([])
      expect(balancer.failed()).toBe(0)
      // Connections were kept: otherwise a restart would have had nothing to lose.
      expect(reused.connections).toBeGreaterThan(served / 2)
      // Each reached the backend once.
      expect(new Set(upstream.requests.map(({ url }) => url)).size).toBe(upstream.requests.length)
      for (const { serving } of running) serving.command.child.kill('SIGINT')
      await Promise.all(running.map(({ serving }) => serving.command.ended))
    },
  )
})
