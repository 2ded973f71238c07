import { vi } from 'vitest'

/** The library gives up after one second, which says more about how busy the machine is than about what is tested. */
const PATIENCE_MS = 10_000

const { waitFor } = vi
vi.waitFor = (callback, options = {}) =>
  waitFor(callback, typeof options === 'number' ? options : { timeout: PATIENCE_MS, ...options })
