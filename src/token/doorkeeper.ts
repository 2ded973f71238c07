/** Tells tokens that come again from those that come once. */
export interface Doorkeeper {
  /** Whether a token came before, as far as is remembered; from now on it did. May be wrong in both directions. */
  hasSeen(id: string): boolean
}

/**
 * Creates a doorkeeper: a table of fingerprints of fixed size, in which each one takes the place of another, so that what is
 * not seen again for long is forgotten. It decides what is worth remembering and nothing else: no token passes because of it.
 *
 * @param entries - about how many tokens it tells apart; it takes 4 to 8 bytes for each
 */
export function createDoorkeeper(entries: number): Doorkeeper {
  const slots = 2 ** Math.ceil(Math.log2(Math.max(1, entries)))
  const prints = new Uint32Array(slots)
  return {
    hasSeen(id) {
      const slot = mix(id, 0) & (slots - 1)
      // Never 0, which is what an empty place holds.
      const print = (mix(id, HASHED_LENGTH) | 1) >>> 0
      const seen = prints[slot] === print
      prints[slot] = print
      return seen
    },
  }
}

const HASHED_LENGTH = 8

/** FNV-1a over a few characters of a text that is a hash already, whose bits are only to be gathered. */
function mix(text: string, from: number): number {
  let mixed = 0x811c9dc5
  for (let i = from; i < from + HASHED_LENGTH; i += 1) mixed = Math.imul(mixed ^ text.charCodeAt(i), 0x01000193)
  return mixed ^ (mixed >>> 16)
}
