import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createEgress, EgressError, type Egress } from '../../../src/issuer/egress.ts'
import { createMetadataCache, type MetadataCache } from '../../../src/issuer/metadata-cache.ts'
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts'
import { startKeyServer, type KeyServer } from '../../fakes/key-server.ts'

const MINUTE = 60_000

let server: KeyServer
let egress: Egress
let clock: FakeClock
let metadata: MetadataCache
let version = 1

beforeEach(async () => {
  version = 1
  server = await startKeyServer((_request, response) => {
    const issuer = `http://127.0.0.1:${server.port}`
    response.end(JSON.stringify({ issuer, jwks_uri: `${issuer}/keys/${version}` }))
  })
  egress = createEgress()
  clock = createFakeClock()
  const issuer = `http://127.0.0.1:${server.port}`
  metadata = createMetadataCache({ issuer, discoveryUrl: undefined, bearerToken: undefined, egress, clock })
})
afterEach(async () => {
  await egress.close()
  await server.stop()
})

const read = async () => (await metadata.read()).jwks_uri?.split('/').at(-1)

describe('the metadata of an issuer', () => {
  it('is fetched once for all who ask at a time, and kept for an hour', async () => {
    expect(new Set(await Promise.all(Array.from({ length: 20 }, read)))).toEqual(new Set(['1']))
    version = 2
    clock.advance(60 * MINUTE - 1)
    expect(await read()).toBe('1')
    expect(server.requests).toHaveLength(1)
    clock.advance(1)
    expect(await read()).toBe('2')
  })

  it('is fetched again at once when it led nowhere', async () => {
    await read()
    version = 2
    metadata.distrust()
    expect(await read()).toBe('2')
  })

  it('outlives an issuer that does not answer, and is not asked for by everybody meanwhile', async () => {
    await read()
    await server.stop()
    metadata.distrust()
    expect(await read()).toBe('1')
    await server.restart()
    version = 2
    clock.advance(30_000 - 1)
    expect(await read()).toBe('1')
    clock.advance(1)
    expect(await read()).toBe('2')
  })

  it('that was never had is missed, each time anew', async () => {
    await server.stop()
    metadata.distrust()
    await expect(metadata.read()).rejects.toBeInstanceOf(EgressError)
    await server.restart()
    expect(await read()).toBe('1')
  })

  it('of another issuer is none', async () => {
    server.answer((_request, response) => response.end(JSON.stringify({ issuer: 'https://other.test' })))
    await expect(metadata.read()).rejects.toThrow(/names the issuer "https:\/\/other\.test"/)
  })
})
