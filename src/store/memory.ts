import type { Clock } from '../util/clock.ts'
import { StoreError, type Store } from './store.ts'

interface Entry {
  readonly value: string
  readonly expiresAtMs: number
  readonly callOff: () => void
}

export interface MemoryStoreOptions {
  readonly clock: Clock
  /** When there are more, those that were set first go. Default 10,000. */
  readonly maxEntries?: number
  /** The same for the characters of all keys and values together. Default 16 Mi. */
  readonly maxLength?: number
}

/** A store for one process. Entries are wiped when their time ends, not when somebody looks for them. */
export function createMemoryStore({
  clock,
  maxEntries = 10_000,
  maxLength = 16 * 1024 * 1024,
}: MemoryStoreOptions): Store {
  const entries = new Map<string, Entry>()
  let length = 0
  let closed = false

  const remove = (key: string): void => {
    const entry = entries.get(key)
    if (entry === undefined) return
    entry.callOff()
    entries.delete(key)
    length -= key.length + entry.value.length
  }
  const read = (key: string): string | undefined => {
    if (closed) throw new StoreError('closed', true)
    const entry = entries.get(key)
    return entry !== undefined && entry.expiresAtMs > clock.now() ? entry.value : undefined
  }
  const write = (key: string, value: string, ttlMs: number): void => {
    if (closed) throw new StoreError('closed', true)
    remove(key)
    entries.set(key, { value, expiresAtMs: clock.now() + ttlMs, callOff: clock.after(ttlMs, () => remove(key)) })
    length += key.length + value.length
    for (const oldest of entries.keys()) {
      if (entries.size <= maxEntries && length <= maxLength) break
      remove(oldest)
    }
  }

  return {
    get: async (key) => read(key),
    set: async (key, value, ttlMs) => write(key, value, ttlMs),
    async getOrSet(key, value, ttlMs) {
      const current = read(key)
      if (current === undefined) write(key, value, ttlMs)
      return current
    },
    async replaceIfEqual(key, expected, value, ttlMs) {
      if (read(key) !== expected) return false
      write(key, value, ttlMs)
      return true
    },
    async deleteIfEqual(key, expected) {
      if (read(key) !== expected) return false
      remove(key)
      return true
    },
    status: () => ({ kind: 'memory', state: closed ? 'closed' : 'ready' }),
    async close() {
      closed = true
      for (const key of [...entries.keys()]) remove(key)
    },
  }
}
