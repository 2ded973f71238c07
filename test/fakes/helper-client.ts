import { createJwksCache } from '../../src/issuer/jwks-cache.ts'
import { readJwks } from '../../src/issuer/jwks.ts'
import type { HelperClient } from '../../src/helper/clients.ts'
import type { Expectation } from '../../src/token/claims.ts'
import type { AcceptedIssuer } from '../../src/token/issuers.ts'
import { createTokenVerifier } from '../../src/token/verifier.ts'
import { createExpectation } from './expectation.ts'
import type { FakeClock } from './clock.ts'
import { AUDIENCE, ISSUER, type SigningKey } from './signer.ts'

export const CLIENT_ID = 'client-1'

/** The issuer of a client, whose keys may fail to come. */
export interface FakeIssuer {
  readonly accepted: AcceptedIssuer
  readonly state: () => string
  /** What it publishes from now on; `undefined` for a fetch that fails. */
  publish(keys: readonly SigningKey[] | undefined): void
  /** Fetches the keys, and waits for that. */
  start(): Promise<void>
}

/** Creates it over a real cache of keys. */
export function createFakeIssuer(clock: FakeClock, changes: Partial<Expectation> = {}): FakeIssuer {
  let published: readonly SigningKey[] | undefined
  let fetched = Promise.withResolvers<void>()
  const keys = createJwksCache({
    issuerName: 'main',
    fetch: () =>
      published === undefined
        ? Promise.reject(new Error('down'))
        : Promise.resolve({ parsed: readJwks({ keys: published.map(({ jwk }) => jwk) }), freshnessMs: undefined }),
    readSeed: undefined,
    refreshIntervalMs: 600_000,
    maxStaleMs: 3_600_000,
    clock,
    onFetch: () => fetched.resolve(),
  })
  return {
    accepted: {
      expectation: createExpectation({
        issuer: ISSUER,
        audience: { claim: 'aud', values: [AUDIENCE] },
        algorithms: new Set(['RS256', 'RS384', 'PS256', 'ES256', 'ES384', 'EdDSA']),
        ...changes,
      }),
      keys,
    },
    state: () => keys.status().state,
    publish: (next) => void (published = next),
    start() {
      fetched = Promise.withResolvers<void>()
      keys.start()
      return fetched.promise
    },
  }
}

/** A client as far as validation looks at it. */
export function createHelperClient(
  { accepted, state }: FakeIssuer,
  clock: FakeClock,
  changes: Partial<HelperClient> = {},
): HelperClient {
  const verifier = createTokenVerifier({
    issuers: [accepted],
    maxTokenBytes: 16_384,
    cacheEntries: 10,
    cacheBytes: 100_000,
    clock,
    onCacheResult: () => undefined,
  })
  return {
    name: 'web',
    clientId: CLIENT_ID,
    accepted,
    tokenTypes: new Set(['bearer']),
    trustedAudiences: [],
    issuer: { name: 'main', issuer: ISSUER, keys: accepted.keys, status: () => ({ state: state() }) },
    validation: { verifier, issuers: [accepted], clock },
    ...changes,
  } as unknown as HelperClient
}
