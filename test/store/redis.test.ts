import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { createRedisStore, type RedisStoreOptions } from '../../src/store/redis.ts'
import type { Store } from '../../src/store/store.ts'
import { systemClock } from '../../src/util/clock.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { isRedisInstalled, startRedis, stopRedis } from '../fakes/redis.ts'

const PASSWORD = 'canary-pw-81c7'
const LONG = 60_000
const open: { store: Store; changes: (string | undefined)[] }[] = []
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const test = isRedisInstalled() ? it : it.skip

function start(port: number, more: Partial<RedisStoreOptions> = {}) {
  const changes: (string | undefined)[] = []
  const store = createRedisStore({
    host: '127.0.0.1',
    port,
    tls: undefined,
    username: undefined,
    readPassword: undefined,
    database: 0,
    keyPrefix: 'test',
    connectTimeoutMs: 1_000,
    commandTimeoutMs: 300,
    clock: systemClock,
    onChange: (fault) => void changes.push(fault),
    ...more,
  })
  open.push({ store, changes })
  return { store, changes }
}

const errorOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error as Error & { code: string; unsent: boolean },
  )

afterEach(async () => {
  await Promise.all(open.splice(0).map(({ store }) => store.close()))
})
afterAll(async () => {
  await stopRedis()
  rmSync(folder, { recursive: true })
})

describe('a Redis', () => {
  test('that is not there: commands fail at once, and work once it is', async () => {
    const redis = await startRedis()
    await redis.kill()
    const { store, changes } = start(redis.port)
    expect(await errorOf(store.get('a'))).toMatchObject({ code: 'ECONNREFUSED', unsent: true })
    expect(store.status()).toEqual({ kind: 'redis', state: 'unavailable' })
    await redis.restart()
    await expect.poll(() => store.status().state, { timeout: 10_000 }).toBe('ready')
    expect(await store.getOrSet('a', '1', LONG)).toBeUndefined()
    expect(changes).toEqual(['ECONNREFUSED', undefined])
  })

  test('that dies: said once, and it is used again when it is back', async () => {
    const redis = await startRedis()
    const { store, changes } = start(redis.port)
    await store.set('a', '1', LONG)
    await redis.kill()
    await expect.poll(() => store.status().state).toBe('unavailable')
    expect(await errorOf(store.get('a'))).toMatchObject({ unsent: true })
    await new Promise((resolve) => setTimeout(resolve, 500))
    await redis.restart()
    await expect.poll(() => store.status().state, { timeout: 10_000 }).toBe('ready')
    expect(changes).toEqual([undefined, expect.any(String), undefined])
  })

  test('that is frozen: a command ends in time, its outcome unknown; the next ones do not wait', async () => {
    const redis = await startRedis()
    const { store, changes } = start(redis.port)
    await store.set('a', '1', LONG)
    redis.freeze()
    expect(await errorOf(store.getOrSet('b', '1', LONG))).toMatchObject({ code: 'timeout', unsent: false })
    const others = await Promise.all(Array.from({ length: 20 }, () => errorOf(store.get('a'))))
    expect(new Set(others.map((error) => `${error?.code} ${error?.unsent}`))).toEqual(new Set(['timeout true']))
    redis.thaw()
    await expect.poll(() => store.status().state, { timeout: 10_000 }).toBe('ready')
    expect(await store.get('a')).toBe('1')
    // What was sent before is carried out then: that is why its outcome is unknown.
    expect(await store.get('b')).toBe('1')
    expect(changes).toEqual([undefined, 'timeout', undefined])
  })

  test('that wants a password gets it from where it is read for each connection', async () => {
    const redis = await startRedis(['requirepass', PASSWORD])
    let password = 'wrong'
    const { store, changes } = start(redis.port, { readPassword: () => password })
    expect(await errorOf(store.get('a'))).toMatchObject({ code: 'WRONGPASS', unsent: true })
    password = PASSWORD
    await expect.poll(() => store.status().state, { timeout: 10_000 }).toBe('ready')
    await store.set('a', '1', LONG)
    expect(changes).toEqual(['WRONGPASS', undefined])
    const without = start(redis.port)
    expect(await errorOf(without.store.get('a'))).toMatchObject({ code: 'NOAUTH', unsent: true })
  })

  test('is used as a user, in a database, under a prefix', async () => {
    const redis = await startRedis([
      'user',
      'bearward',
      'on',
      `>${PASSWORD}`,
      '~own:*',
      '+set',
      '+get',
      '+del',
      '+eval',
      '+select',
    ])
    const as = { username: 'bearward', readPassword: () => PASSWORD, database: 3 }
    const { store } = start(redis.port, { ...as, keyPrefix: 'own' })
    await store.set('a', '1', LONG)
    expect(await store.replaceIfEqual('a', '1', '2', LONG)).toBe(true)
    expect(await redis.ask('SELECT 3', 'GET own:a')).toContain('\r\n2\r\n')
    expect(await redis.ask('GET own:a')).toContain('$-1')
    const elsewhere = start(redis.port, { ...as, keyPrefix: 'other' })
    expect(await errorOf(elsewhere.store.get('a'))).toMatchObject({ code: 'NOPERM', unsent: true })
  })

  test('that is a replica, or became one, is not used', async () => {
    const redis = await startRedis()
    const { store } = start(redis.port)
    await store.set('a', '1', LONG)
    await redis.ask('REPLICAOF 127.0.0.1 1')
    expect(await errorOf(store.set('a', '2', LONG))).toMatchObject({ code: 'READONLY' })
    expect(await errorOf(store.set('a', '2', LONG))).toMatchObject({ unsent: true })
    await redis.ask('REPLICAOF NO ONE')
    await expect.poll(() => store.status().state, { timeout: 10_000 }).toBe('ready')
    await store.set('a', '3', LONG)
  })

  test('behind TLS is trusted by its own authority alone, and sees our certificate', async () => {
    const authority = createAuthority('authority')
    const write = (name: string, text: string) => {
      const file = join(folder, name)
      writeFileSync(file, text)
      return file
    }
    const server = authority.issue('redis.test', '127.0.0.1')
    const client = authority.issue('bearward.test')
    const ca = write('ca.pem', authority.certificate)
    const redis = await startRedis(
      ['tls-port', 'PORT'],
      ['tls-cert-file', write('server.pem', server.cert)],
      ['tls-key-file', write('server-key.pem', server.key)],
      ['tls-ca-cert-file', ca],
    )
    const tls = {
      serverName: 'redis.test',
      caFile: ca,
      certificateFile: write('client.pem', client.cert),
      keyFile: write('client-key.pem', client.key),
    }
    const { store } = start(redis.port, { tls })
    await store.set('a', '1', LONG)
    expect(await store.get('a')).toBe('1')
    const unnamedHost = start(redis.port, { tls: { ...tls, serverName: undefined } })
    await unnamedHost.store.set('a', '2', LONG)
    const stranger = start(redis.port, { tls: { ...tls, caFile: undefined } })
    expect((await errorOf(stranger.store.get('a')))?.code).toMatch(/CERT|ISSUER|VERIFY/)
    const misnamed = start(redis.port, { tls: { ...tls, serverName: 'other.test' } })
    expect(await errorOf(misnamed.store.get('a'))).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
    const unnamed = start(redis.port, { tls: { ...tls, certificateFile: undefined, keyFile: undefined } })
    expect(await errorOf(unnamed.store.get('a'))).toMatchObject({ unsent: true })
    const missing = start(redis.port, { tls: { ...tls, caFile: join(folder, 'none.pem') } })
    expect(await errorOf(missing.store.get('a'))).toMatchObject({ code: 'ENOENT', unsent: true })
  })
})

describe('what is no Redis', () => {
  const sockets = new Set<Socket>()
  const listen = async (onConnection: (socket: Socket) => void) => {
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => undefined))
      onConnection(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
    const stop = () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
    return { port: (server.address() as AddressInfo).port, stop }
  }

  it.each<[string, (socket: Socket) => void]>([
    ['says nothing', () => undefined],
    ['hangs up', (socket) => socket.end()],
    ['speaks HTTP', (socket) => socket.write(`HTTP/1.1 400 ${PASSWORD}\r\n\r\n`)],
    ['answers with noise', (socket) => socket.write(Buffer.from([0, 255, 13, 10, 36, 45, 57, 57, 13, 10]))],
    ['says something of its own', (socket) => socket.write('-CANARYPW says no\r\n'.repeat(4))],
    ['repeats the password in an error', (socket) => socket.write(`-ERR user ${PASSWORD} is wrong\r\n`.repeat(4))],
  ])('and %s: commands fail with a code, and nothing falls over', async (_what, behave) => {
    const server = await listen(behave)
    const { store, changes } = start(server.port, { connectTimeoutMs: 200, readPassword: () => PASSWORD })
    const error = await errorOf(store.set('a', '1', LONG))
    expect(error).toMatchObject({ name: 'StoreError', unsent: true })
    expect(error?.code).toMatch(/^[A-Za-z_]{2,40}$/)
    const said = JSON.stringify([error?.message, error?.code, changes])
    expect(said).not.toMatch(/canary/i)
    expect(store.status().state).toBe('unavailable')
    await store.close()
    server.stop()
  })
})
