import { describe, expect, it } from 'vitest'
import { CALLERS } from '../soak/callers.ts'
import { findLeaks, soak, type Round } from '../soak/soak.ts'

const AT_REST = {
  descriptors: 30,
  heapBytes: 20e6,
  externalBytes: 10e6,
  residentBytes: 120e6,
  requestsInFlight: 0,
  unexpectedErrors: 0,
}
const round = (holdings: Partial<Round['holdings']> = {}, backendConnections = 0): Round => ({
  ...{ number: 0, callers: 0, seconds: 0, backendConnections },
  holdings: { ...AT_REST, ...holdings },
})

describe('five thousand callers that leave at random points', () => {
  it('leave nothing behind: no connection, no memory; and no request arrives twice', { timeout: 120_000 }, async () => {
    const { rounds, kinds, lost, faults } = await soak({
      rounds: 1,
      callersPerRound: 5_000,
      warmUp: 3_000,
      callersPerSecond: 400,
      seed: 1,
      onRound: ({ number, holdings }) => console.log(`after ${number === 0 ? 'the warm-up' : 'all'}:`, holdings),
    })
    expect(faults).toEqual([])
    expect(rounds).toHaveLength(2)
    expect(Object.keys(kinds).sort()).toEqual(Object.keys(CALLERS).sort())
    // Connections were closed just before they were used again.
    expect(lost).toBeGreaterThan(0)
  })

  it.each<[string, Round, string]>([
    ['a connection of a caller', round({ descriptors: 31 }), 'descriptors: 31'],
    ['a connection to the backend', round({}, 1), 'connections to the backend: 1'],
    ['a request', round({ requestsInFlight: 1 }), 'requests in flight: 1'],
    ['a quarter of a kilobyte for each caller', round({ heapBytes: 21.25e6 }), 'bytes of heap'],
    ['buffers', round({ externalBytes: 20e6 }), 'bytes outside of the heap'],
    ['memory of the library', round({ residentBytes: 170e6 }), 'bytes resident'],
    ['a fault of its own', round({ unexpectedErrors: 1 }), 'unexpected errors: 1'],
    ['a figure that cannot be read', round({ requestsInFlight: NaN }), 'requests in flight: NaN'],
  ])('would be noticed if they left %s', (_what, after, fault) => {
    expect(findLeaks([round(), after])).toEqual([expect.stringContaining(fault)])
  })
})
