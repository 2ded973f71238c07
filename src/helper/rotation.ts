import { credentialsUnavailable } from './grant-errors.ts'

/** What is remembered of credentials that can be rotated, by client; outlives a change of the configuration. */
export type RotationMemory = Map<string, { current: string; previous: string | undefined }>

/** The text of a secret or key that somebody may replace at any time. */
export interface Rotation {
  /**
   * The present text, and after it the one before, until the issuer accepted the present one. When the place cannot be read
   * at the moment, the last text that could be.
   *
   * @throws GrantError `credentials_unavailable` when it never could be read
   */
  read(): readonly string[]
  /** The issuer accepted this text. */
  accepted(text: string): void
}

/**
 * Follows one secret through its rotations.
 *
 * @param name - under which it is remembered
 * @param readNow - reads the place; throws when that fails
 */
export function createRotation(memory: RotationMemory, name: string, readNow: () => string): Rotation {
  const follow = (): { current: string; previous: string | undefined } => {
    const known = memory.get(name)
    const text = readOr(readNow, known?.current)
    if (known?.current === text) return known
    // Of several that follow each other unused, the one that the issuer last knew is kept.
    const before = known?.previous ?? known?.current
    const next = { current: text, previous: before === text ? undefined : before }
    memory.set(name, next)
    return next
  }
  return {
    read() {
      const { current, previous } = follow()
      return previous === undefined ? [current] : [current, previous]
    },
    accepted(text) {
      const known = memory.get(name)
      if (known?.current === text) known.previous = undefined
    },
  }
}

function readOr(readNow: () => string, fallback: string | undefined): string {
  try {
    return readNow()
  } catch {
    if (fallback !== undefined) return fallback
    throw credentialsUnavailable('the secret or key cannot be read')
  }
}
