/**
 * Shared state of several processes: small, atomic, and forgotten by itself. Every entry has a time to live that the store
 * counts by its own clock, so that the clocks of its users do not matter.
 */
export interface Store {
  get(key: string): Promise<string | undefined>
  set(key: string, value: string, ttlMs: number): Promise<void>
  /** Sets it unless there is a value. @returns the value that is there; undefined when it was set */
  getOrSet(key: string, value: string, ttlMs: number): Promise<string | undefined>
  /** Replaces exactly this value, and its time to live. @returns whether it was there */
  replaceIfEqual(key: string, expected: string, value: string, ttlMs: number): Promise<boolean>
  /** Deletes exactly this value. @returns whether it was there */
  deleteIfEqual(key: string, expected: string): Promise<boolean>
  readonly status: () => StoreStatus
  close(): Promise<void>
}

/** Times to live are whole milliseconds from 1 on. Every method may throw {@link StoreError}. */
export interface StoreStatus {
  readonly kind: 'memory' | 'redis'
  readonly state: 'connecting' | 'ready' | 'unavailable' | 'closed'
}

/** A store that did not do what it was asked. `code` is a short word for logs; no address and no secret is in it. */
export class StoreError extends Error {
  readonly code: string
  /** Whether the store cannot have seen the command. Otherwise it may have carried it out, or may do so yet. */
  readonly unsent: boolean

  constructor(code: string, unsent: boolean) {
    super(`the store failed: ${code}`)
    this.name = 'StoreError'
    this.code = code
    this.unsent = unsent
  }
}
