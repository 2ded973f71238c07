/**
 * Run by `npm run bench:rooms`: what one operation of a room costs, without sockets. For comparing a change with what was
 * there before, on one machine.
 */
import { createTokenReader } from '../../src/http/authorization.ts'
import { createExpectation } from '../fakes/expectation.ts'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CodedError } from '../../src/errors.ts'
import { createGate, type Gate } from '../../src/gate/gate.ts'
import { createIdentityEncoder } from '../../src/gate/identity.ts'
import { createRuleMatcher, type RuleOptions } from '../../src/gate/rules.ts'
import { addForwardedFields } from '../../src/http/forwarded.ts'
import { createRequestFieldFilter } from '../../src/http/headers.ts'
import { toProblemResponse } from '../../src/http/problem.ts'
import { readTarget } from '../../src/http/target.ts'
import { createJwksCache } from '../../src/issuer/jwks-cache.ts'
import { readJwks } from '../../src/issuer/jwks.ts'
import { createTokenVerifier } from '../../src/token/verifier.ts'
import { systemClock } from '../../src/util/clock.ts'
import { AUDIENCE, createSigningKey, ISSUER, signJwt, type SigningKey } from '../fakes/signer.ts'
import { alignColumns } from './report.ts'
import { benchClaims } from './tokens.ts'

/** What one operation costs. */
export interface Cost {
  readonly name: string
  /** Median of several runs. */
  readonly nanoseconds: number
}

const RUNS = 7
const HELP = `Measures one operation of each room.

Usage: npm run bench:rooms -- [OPTIONS]

Options:
  --duration SECONDS   For each operation; default 1.
  --help               This text.
`

const TARGET_OPTIONS = { maxBytes: 8192, allowSemicolon: false, allowEncodedSlash: false }
const PATH = '/api/v1/customers/42/orders?page=3'

const keys = { RS256: createSigningKey('RS256'), ES256: createSigningKey('ES256') }

/** Header fields as a browser's request has them behind a load balancer. */
function fieldsWith(token: string | undefined): string[] {
  const fields = ['Host', 'api.example.com', 'User-Agent', 'Mozilla/5.0 (X11; Linux x86_64)', 'Accept', '*/*']
  fields.push('Accept-Encoding', 'gzip, deflate, br', 'Accept-Language', 'en', 'Cookie', 'theme=dark; lang=en')
  fields.push('X-Forwarded-For', '203.0.113.9', 'X-Forwarded-Proto', 'https', 'Connection', 'keep-alive')
  if (token !== undefined) fields.push('Authorization', `Bearer ${token}`)
  return fields
}

/** A gate over real rooms with both keys loaded. */
async function buildGate(rememberedTokens: number): Promise<Gate> {
  const fetched = Promise.withResolvers<void>()
  const jwks = createJwksCache({
    issuerName: 'bench',
    fetch: () =>
      Promise.resolve({
        parsed: readJwks({ keys: Object.values(keys).map(({ jwk }) => jwk) }),
        freshnessMs: undefined,
      }),
    readSeed: undefined,
    refreshIntervalMs: 600_000,
    maxStaleMs: 86_400_000,
    clock: systemClock,
    onFetch: () => fetched.resolve(),
  })
  jwks.start()
  await fetched.promise
  const expectation = createExpectation({
    name: 'bench',
    issuer: ISSUER,
    audience: { claim: 'aud', values: [AUDIENCE] },
    algorithms: new Set(Object.keys(keys)),
    types: new Set(['at+jwt']),
  })
  const limits = { maxHeaderBytes: 8192, maxTotalBytes: 16_384 }
  return createGate({
    target: TARGET_OPTIONS,
    readToken: createTokenReader('authorization'),
    forwardPreflights: true,
    matchRule: createRuleMatcher(rules(100), false),
    verifier: createTokenVerifier({
      issuers: [{ expectation, keys: jwks }],
      maxTokenBytes: 16_384,
      cacheEntries: rememberedTokens,
      cacheBytes: 256 * 1024 * 1024,
      clock: systemClock,
      onCacheResult: () => undefined,
    }),
    toIdentity: createIdentityEncoder({ prefix: 'x-auth-', defaults: true, headers: [], ...limits }),
  })
}

/** So many rules, the last of which is the one for {@link PATH}. */
function rules(count: number): RuleOptions[] {
  const rule = (name: string, prefix: string): RuleOptions => ({
    ...{ name, prefix: [prefix], exact: [], methods: undefined },
    ...{ access: 'required', allScopes: [], anyScope: [], claims: [] },
  })
  const others = Array.from({ length: count - 1 }, (_, i) => rule(`rule-${i}`, `/api/v1/resource-${i}`))
  return [...others, rule('customers', '/api/v1/customers')]
}

type Operation = () => unknown

/** Every operation by name. One that returns a promise is awaited each time. */
async function operations(): Promise<Record<string, Operation>> {
  const [remembering, forgetting] = [await buildGate(100), await buildGate(0)]
  const decide = (gate: Gate, token: string | undefined): Operation => {
    const request = { method: 'GET', target: PATH, fields: fieldsWith(token) }
    return () => gate(request, {})
  }
  const sign = (key: SigningKey) => signJwt(key, benchClaims('1'))
  // Whether a check is done at once depends on what else was done in the same turn of the event loop.
  const decideLate = (key: SigningKey): Operation => {
    const operation = decide(forgetting, sign(key))
    return async () => operation()
  }
  const warm = sign(keys.RS256)
  await decide(remembering, warm)()

  const filter = createRequestFieldFilter({
    identityPrefix: 'x-auth-',
    managedNames: ['x-request-id'],
    forwardAuthorization: false,
  })
  const fields = fieldsWith(warm)
  const peer = { address: '10.0.0.1', trusted: false, scheme: 'http' } as const
  const match = (count: number): Operation => {
    const matchRule = createRuleMatcher(rules(count), false)
    const target = readTarget(PATH, TARGET_OPTIONS)
    return () => matchRule(target, 'GET')
  }
  return {
    'gate, warm': decide(remembering, warm),
    'gate, cold RS256': decideLate(keys.RS256),
    'gate, cold ES256': decideLate(keys.ES256),
    'header pass': () => addForwardedFields(filter(fields, false), fields, peer),
    'rule match, 1 rule': match(1),
    'rule match, 100 rules': match(100),
    'rule match, 10000 rules': match(10_000),
    'refusal, no token': refuse(decide(remembering, undefined)),
    'refusal, garbage': refuse(decide(remembering, 'garbage')),
  }
}

/** An operation that must fail, with the response made of it. */
function refuse(decide: Operation): Operation {
  const respond = (error: unknown) => {
    if (!(error instanceof CodedError)) throw error
    return toProblemResponse(error.code, '0b5c1a3e')
  }
  return () => {
    try {
      const late = decide()
      if (late instanceof Promise) return late.catch(respond)
    } catch (error) {
      return respond(error)
    }
    throw new Error('this must have been refused')
  }
}

/** Measures every operation. */
export async function measureRooms(secondsEach: number): Promise<Cost[]> {
  const costs: Cost[] = []
  for (const [name, operation] of Object.entries(await operations())) {
    costs.push({ name, nanoseconds: await measure(operation, (secondsEach * 1000) / (RUNS + 1)) })
  }
  return costs
}

/** The first run warms up and is left out. */
async function measure(operation: Operation, runMs: number): Promise<number> {
  const isAsync = operation() instanceof Promise
  const results: number[] = []
  for (let run = 0; run <= RUNS; run += 1) results.push(await (isAsync ? runAsync : runSync)(operation, runMs))
  const sorted = results.slice(1).sort((a, b) => a - b)
  return sorted[Math.floor(RUNS / 2)] as number
}

/** Between two looks at the clock, so that the clock is not what is measured. */
const BATCH = 32
/** How many requests bring a new token in one turn of the event loop, under load. */
const PER_TURN = 16
/** Where results go, so that the compiler cannot leave out what nobody looks at. */
export let lastResult: unknown

function runSync(operation: Operation, runMs: number): number {
  const startedMs = performance.now()
  let count = 0
  let now = startedMs
  for (; now - startedMs < runMs; now = performance.now()) {
    for (let i = 0; i < BATCH; i += 1) lastResult = operation()
    count += BATCH
  }
  return ((now - startedMs) * 1e6) / count
}

async function runAsync(operation: Operation, runMs: number): Promise<number> {
  const startedMs = performance.now()
  let count = 0
  let now = startedMs
  for (; now - startedMs < runMs; now = performance.now()) {
    lastResult = await operation()
    count += 1
    if (count % PER_TURN === 0) await new Promise(setImmediate)
  }
  return ((now - startedMs) * 1e6) / count
}

/** The costs as a table for a terminal. */
export function renderCosts(costs: readonly Cost[]): string {
  const cell = (nanoseconds: number) =>
    nanoseconds < 1000 ? `${nanoseconds.toFixed(0)} ns` : `${(nanoseconds / 1000).toFixed(1)} µs`
  return alignColumns([['operation', 'time each'], ...costs.map(({ name, nanoseconds }) => [name, cell(nanoseconds)])])
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = await run(process.argv.slice(2))
}

async function run(args: string[]): Promise<number> {
  let values
  try {
    values = parseArgs({ args, options: { duration: { type: 'string' }, help: { type: 'boolean' } } }).values
  } catch (error) {
    process.stderr.write(`${(error as Error).message.split(/\.\s/, 1)[0]}. See "npm run bench:rooms -- --help".\n`)
    return 64
  }
  if (values.help === true) {
    process.stdout.write(HELP)
    return 0
  }
  const seconds = Number(values.duration ?? '1')
  if (!(seconds >= 0.001 && seconds <= 60)) {
    process.stderr.write(`--duration takes a number from 0.001 to 60, not "${values.duration}".\n`)
    return 64
  }
  process.stdout.write(renderCosts(await measureRooms(seconds)))
  return 0
}
