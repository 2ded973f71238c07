import { refusal } from '../errors.ts'
import type { ParsedKeys, VerificationKey } from './jwks.ts'

/** The keys of an issuer, ready to be looked up. */
export interface KeySet {
  readonly size: number
  has(key: VerificationKey): boolean
  /**
   * The keys that may verify a token with this header: those with its `kid`, or all that fit when it has none.
   *
   * @returns an empty list when there is none
   * @throws Refusal `algorithm_not_allowed` when the keys with this `kid` are for other algorithms
   */
  select(kid: string | undefined, alg: string): readonly VerificationKey[]
}

const NONE: readonly VerificationKey[] = []

/**
 * Indexes keys, so that finding one costs one look-up however many there are.
 *
 * @param before - the keys in use so far: one that is published again stays the same object, and what it verified stays
 * remembered
 */
export function createKeySet({ keys: parsed }: ParsedKeys, before: KeySetWithIds | undefined): KeySetWithIds {
  const byId = new Map(parsed.map((key) => [key.id, before?.byId.get(key.id) ?? key]))
  const keys = new Set(byId.values())
  const byKid = new Map<string, VerificationKey[]>()
  const byAlgorithm = new Map<string, VerificationKey[]>()
  for (const key of keys) {
    if (key.kid !== undefined) append(byKid, key.kid, key)
    for (const algorithm of key.algorithms) append(byAlgorithm, algorithm, key)
  }
  return {
    byId,
    size: keys.size,
    has: (key) => keys.has(key),
    select(kid, alg) {
      if (kid === undefined) return byAlgorithm.get(alg) ?? NONE
      const named = byKid.get(kid)
      if (named === undefined) return NONE
      const fitting = named.every(({ algorithms }) => algorithms.has(alg))
        ? named
        : named.filter(({ algorithms }) => algorithms.has(alg))
      if (fitting.length === 0) throw refusal('algorithm_not_allowed', { algorithm: alg, kid })
      return fitting
    },
  }
}

/** A key set that the next one can take unchanged keys from. */
export interface KeySetWithIds extends KeySet {
  readonly byId: ReadonlyMap<string, VerificationKey>
}

function append(map: Map<string, VerificationKey[]>, name: string, key: VerificationKey): void {
  const list = map.get(name)
  if (list === undefined) map.set(name, [key])
  else list.push(key)
}
