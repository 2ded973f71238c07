import { setTimeout as sleep } from 'node:timers/promises'
import { startAuthorizationServer } from '../fakes/authorization-server.ts'
import { startSoakBackend } from './backend.ts'
import { CALLERS, type World } from './callers.ts'
import { createRandom, oneOf } from './random.ts'
import { startSoakedSidecar, type Holdings, type SoakedSidecar } from './sidecar.ts'

export interface SoakOptions {
  /** Each ends with a look at what the process holds. */
  readonly rounds: number
  /** Callers of each round, and before the first: what a process keeps from then on is not a leak. */
  readonly callersPerRound: number
  readonly warmUp: number
  readonly callersPerSecond: number
  /** What is drawn by lot is the same for the same seed. */
  readonly seed: number
  readonly onRound: (round: Round) => void
}

/** How things stand after a round; the first is the one after the warm-up. */
export interface Round {
  readonly number: number
  /** Callers so far, and seconds since the start. */
  readonly callers: number
  readonly seconds: number
  readonly holdings: Holdings
  /** Connections of the backend. */
  readonly backendConnections: number
}

export interface SoakResult {
  readonly rounds: readonly Round[]
  /** How many callers there were of each kind. */
  readonly kinds: Readonly<Record<string, number>>
  /** How many POSTs were answered 502, because the backend had closed the connection: the race was run. */
  readonly lost: number
  /** What did not come back to where it was, and every promise that was broken; empty for a pass. */
  readonly faults: readonly string[]
}

/** Most callers at a time. */
const MAX_CALLERS = 300
/** How long everything may take to come to rest after the last caller: the upstream's connections are kept for 4 s. */
const REST_LIMIT_MS = 20_000
const REST_MS = 5_000
/** What a heap, and a process as a whole, may be above what it was, in bytes: more than they waver, less than leaks are. */
const HEAP_MARGIN_BYTES = 1024 * 1024
const RESIDENT_MARGIN_BYTES = 40 * 1024 * 1024
const MAX_FAULTS = 20

/** Sends callers that leave at random points to a sidecar in a process of its own, and looks whether anything stays behind. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const random = createRandom(options.seed)
  const issuer = await startAuthorizationServer()
  const backend = await startSoakBackend(random)
  const sidecar = await startSoakedSidecar({
    issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
    // Callers and backend share a process, which may be busy for longer than a backend may take to answer.
    upstream: { url: backend.url, connect_timeout: '30s' },
  })
  const faults: string[] = []
  const onBroken = (what: string) => void (faults.length < MAX_FAULTS && faults.push(what))
  let id = 0
  let lost = 0
  const token = issuer.signAccessToken({ exp: Math.floor(Date.now() / 1000) + 7 * 86_400 })
  const world: World = {
    port: sidecar.port,
    token,
    backend,
    random,
    nextId: () => (id += 1),
    onLost: () => (lost += 1),
    onBroken,
  }
  const kinds: Record<string, number> = {}
  const startedMs = performance.now()
  let callers = 0
  let descriptors: number | undefined

  const look = async (number: number): Promise<Round> => {
    const seconds = (performance.now() - startedMs) / 1000
    const holdings = await comeToRest(sidecar, () => backend.connections(), descriptors)
    descriptors ??= holdings.descriptors
    const round = { number, callers, seconds, holdings, backendConnections: backend.connections() }
    options.onRound(round)
    return round
  }
  const send = async (count: number) => {
    callers += count
    await sendCallers({
      world,
      kinds,
      count,
      perSecond: options.callersPerSecond,
      isOver: () => sidecar.ended() !== undefined,
    })
  }
  try {
    await send(options.warmUp)
    const rounds = [await look(0)]
    for (let number = 1; number <= options.rounds; number += 1) {
      await send(options.callersPerRound)
      rounds.push(await look(number))
    }
    return { rounds, kinds, lost, faults: [...faults, ...findLeaks(rounds)] }
  } catch (error) {
    const how = sidecar.ended()
    if (how === undefined) throw error
    return { rounds: [], kinds, lost, faults: [...faults, `bearward ended ${how}`] }
  } finally {
    await Promise.all([sidecar.stop(), issuer.stop(), backend.stop()])
  }
}

interface Wave {
  readonly world: World
  readonly kinds: Record<string, number>
  readonly count: number
  readonly perSecond: number
  readonly isOver: () => boolean
}

/** Sends callers of all kinds at a rate, and waits for the last. */
async function sendCallers({ world, kinds, count, perSecond, isOver }: Wave): Promise<void> {
  const running = new Set<Promise<void>>()
  const startedMs = performance.now()
  for (let sent = 0; sent < count && !isOver(); sent += 1) {
    const kind = oneOf(world.random, Object.keys(CALLERS))
    kinds[kind] = (kinds[kind] ?? 0) + 1
    const caller = (CALLERS[kind] as (typeof CALLERS)[string])(world)
      .catch((error: unknown) => world.onBroken(`${kind}: ${String(error)}`))
      .finally(() => running.delete(caller))
    running.add(caller)
    const dueMs = startedMs + (sent * 1000) / perSecond
    const earlyMs = dueMs - performance.now()
    if (earlyMs > 0) await sleep(earlyMs)
    while (running.size >= MAX_CALLERS) await Promise.race(running)
  }
  const stuck = sleep(REST_LIMIT_MS, 'stuck', { ref: false })
  if ((await Promise.race([Promise.all(running), stuck])) === 'stuck')
    world.onBroken(`${running.size} callers never ended`)
}

/** Waits until nothing is in flight and the connections kept for further requests have been let go of. */
async function comeToRest(
  sidecar: SoakedSidecar,
  backendConnections: () => number,
  descriptors = Infinity,
): Promise<Holdings> {
  const deadlineMs = performance.now() + REST_LIMIT_MS
  await sleep(REST_MS)
  for (;;) {
    const holdings = await sidecar.holdings()
    const isAtRest = holdings.requestsInFlight === 0 && backendConnections() === 0
    if ((isAtRest && holdings.descriptors <= descriptors) || performance.now() > deadlineMs) return holdings
    await sleep(500)
  }
}

/** Compares the last round with the state after the warm-up. */
export function findLeaks(rounds: readonly Round[]): string[] {
  const first = rounds[0]
  const last = rounds.at(-1)
  if (first === undefined || last === undefined || first === last) return ['there was no round to compare']
  const [before, after] = [first.holdings, last.holdings]
  const faults: string[] = []
  const expectAtMost = (what: string, value: number, limit: number) => {
    // NaN, too: a figure that is missing says nothing good.
    if (!(value <= limit)) faults.push(`${what}: ${value}, more than ${limit}`)
  }
  expectAtMost('requests in flight', after.requestsInFlight, 0)
  expectAtMost('unexpected errors', after.unexpectedErrors, 0)
  expectAtMost('connections to the backend', last.backendConnections, 0)
  expectAtMost('descriptors', after.descriptors, before.descriptors)
  expectAtMost('bytes of heap', after.heapBytes, before.heapBytes + HEAP_MARGIN_BYTES)
  expectAtMost('bytes outside of the heap', after.externalBytes, before.externalBytes + HEAP_MARGIN_BYTES)
  // The allocator gives back what it likes, when it likes: what counts is how low it still gets.
  const later = rounds.slice(Math.ceil(rounds.length / 2)).map(({ holdings }) => holdings.residentBytes)
  expectAtMost('bytes resident', Math.min(...later), before.residentBytes + RESIDENT_MARGIN_BYTES)
  return faults
}
