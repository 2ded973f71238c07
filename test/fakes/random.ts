/** Random choices that can be made again: the seed is part of what a failing test prints. */
export interface Random {
  readonly seed: number
  /** A whole number from 0 up to, not including, `end`. */
  below(end: number): number
  chance(probability: number): boolean
  pick<T>(from: readonly T[]): T
  /** So many of what `make` makes. */
  many<T>(count: number, make: () => T): T[]
}

/** @param seed - by default the variable `SEED`, or another one each time */
export function createRandom(seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)): Random {
  let state = seed
  // mulberry32
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let value = Math.imul(state ^ (state >>> 15), 1 | state)
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (end: number) => Math.floor(next() * end)
  return {
    seed,
    below,
    chance: (probability) => next() < probability,
    pick: <T>(from: readonly T[]) => from[below(from.length)] as T,
    many: (count, make) => Array.from({ length: count }, make),
  }
}
