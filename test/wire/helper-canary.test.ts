import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isRedisInstalled, startRedis, stopRedis } from '../fakes/redis.ts'
import { allOutput, startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startSurroundings, toHelperConfig, type Surroundings } from '../fakes/surroundings.ts'
import { refreshAt, type TokenAnswer } from '../fakes/token-request.ts'

/**
 * A word is planted in the password of the store, in the keys for sealing and in refresh tokens, sealed and not; stores
 * that fail in every way repeat it in their errors. It must be in nothing that was logged, counted or answered.
 */
const CANARY = 'Canary7Wd3'
const KEY = `${CANARY}${'x'.repeat(33)}`
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const servers: Server[] = []
const answers: TokenAnswer[] = []
let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  writeFileSync(join(folder, 'key'), KEY)
})

afterAll(async () => {
  await stopSidecars()
  await stopRedis()
  for (const server of servers) server.close()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

async function start(port: number, onFailure: 'local' | 'refuse', acceptUnsealed = true): Promise<FakeSidecar> {
  const sidecar = await startSidecar({
    config: toHelperConfig(issuer, upstream, {
      timeout: '1s',
      clients: { web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' }, replay_window: '5s' } },
      store: {
        redis: {
          url: `redis://127.0.0.1:${port}`,
          username: 'default',
          password: { env: 'REDIS_PASSWORD' },
          connect_timeout: '300ms',
          command_timeout: '300ms',
        },
        on_failure: onFailure,
      },
      sealing: { key_files: [join(folder, 'key')], accept_unsealed: acceptUnsealed },
    }),
    env: { WEB_SECRET: issuer.clients.web.secret, REDIS_PASSWORD: `${CANARY}-password` },
  })
  await sidecar.ready()
  return sidecar
}

/** A store that answers everything with the same text. */
async function startNoise(text: string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined).on('data', () => socket.write(text))
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  return (server.address() as AddressInfo).port
}

async function go(sidecar: FakeSidecar, token: string): Promise<TokenAnswer> {
  const answer = await refreshAt(sidecar.helper, token)
  if (answer.status !== 200) answers.push(answer)
  return answer
}

const test = isRedisInstalled() ? it : it.skip

test('whatever happens to a spend and its store, no secret in it is written down', async () => {
  const secrets: string[] = [CANARY, issuer.clients.web.secret]
  const keep = ({ body }: TokenAnswer) => {
    for (const name of ['access_token', 'refresh_token', 'id_token']) secrets.push(String(body[name]))
    return String(body['refresh_token'])
  }
  const redis = await startRedis(['requirepass', `${CANARY}-password`])
  const [a, b] = [await start(redis.port, 'refuse'), await start(redis.port, 'refuse', false)]
  const token = await issuer.signIn()
  secrets.push(token)
  issuer.delayTokens(300)
  const both = await Promise.all([go(a, token), go(a, token), go(b, token)])
  const sealed = keep(both[0])
  expect(both.map(({ status }) => status)).toEqual([200, 200, 400])
  keep(await go(a, token))
  issuer.delayTokens(0)
  keep(await go(b, sealed))
  await go(b, `${sealed.slice(0, -6)}${CANARY}`)
  await go(a, CANARY)
  for (const mode of ['html', '500', 'reset', 'hang', 'lost'] as const) {
    issuer.fail('token', mode)
    for (let i = 0; i < 2; i += 1) await go(a, `${CANARY}-${mode}-${i}`)
  }
  issuer.fail('token', undefined)
  redis.freeze()
  await go(b, sealed)
  await redis.kill()
  await go(b, sealed)
  for (const text of [
    `-ERR ${CANARY}\r\n`,
    `-${CANARY} x\r\n`,
    `+${CANARY}\r\n`,
    `${CANARY}\r\n`,
    `$3\r\n${CANARY}\r\n`,
  ]) {
    const noisy = await start(await startNoise(text), 'refuse')
    await go(noisy, CANARY)
    await noisy.metrics()
  }
  for (const one of [a, b]) await one.metrics()

  const codes = new Set(answers.map(({ body }) => body['code']))
  expect([...codes].toSorted()).toEqual([
    'issuer_error',
    'issuer_timeout',
    'issuer_unavailable',
    'outcome_unknown',
    'refresh_token_not_sealed',
    'refresh_token_seal_invalid',
    'refused_by_issuer',
    'store_unavailable',
    'token_validation_failed',
  ])
  const output = allOutput.join('\n') + JSON.stringify(answers)
  expect(output.length).toBeGreaterThan(5_000)
  for (const secret of secrets) expect(output).not.toContain(secret)
})
