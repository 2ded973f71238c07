/** Something that several owners use at a time; it is closed when the last of them lets go of it. */
export interface Shared<T> {
  /** Equal for what would be built the same. */
  readonly key: string
  readonly value: T
  /** Whether `share` built it, rather than took it over. */
  readonly isNew: boolean
  /** To be called once by each owner. */
  release(): void
}

interface Counted<T> {
  readonly key: string
  readonly value: T
  readonly close: (value: T) => void
  owners: number
}

const counts = new WeakMap<Shared<unknown>, Counted<unknown>>()

/**
 * Becomes an owner of what one of the candidates holds, if its key is the same, and else of something new.
 *
 * @param candidates - what other owners hold and have not yet released
 */
export function share<T>(
  candidates: readonly Shared<T>[],
  key: string,
  create: () => T,
  close: (value: T) => void,
): Shared<T> {
  const known = candidates.find((candidate) => candidate.key === key)
  const counted = known === undefined ? undefined : (counts.get(known) as Counted<T>)
  return own(counted ?? { key, value: create(), close, owners: 0 })
}

function own<T>(counted: Counted<T>): Shared<T> {
  const isNew = counted.owners === 0
  counted.owners += 1
  let released = false
  const shared: Shared<T> = {
    key: counted.key,
    value: counted.value,
    isNew,
    release() {
      if (released) return
      released = true
      counted.owners -= 1
      if (counted.owners === 0) counted.close(counted.value)
    },
  }
  counts.set(shared, counted as Counted<unknown>)
  return shared
}
