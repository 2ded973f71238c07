import { hash } from 'node:crypto'
import type { Clock } from '../util/clock.ts'

/** How often each device code may be polled (RFC 8628 §3.5). */
export interface DevicePace {
  /** A code was handed out with this interval and lifetime. */
  begin(key: string, intervalMs: number, lifetimeMs: number): void
  /** Notes that somebody polls. @returns whether that is the first poll of a code that was handed out here */
  isFirst(key: string): boolean
  /** In how many milliseconds from now the code may be polled; 0 for now. */
  delayMs(key: string): number
  /** The issuer said that the user has not decided, or did not answer at all: the next poll is an interval away. */
  pending(key: string): void
  /** Too often: 5 seconds more between polls from now on, and at least this long until the next. */
  slowDown(key: string, atLeastMs?: number): void
  /** The issuer could not be reached: the interval doubles, to at most a minute. */
  backOff(key: string): void
  /** Nothing more will come of the code. */
  end(key: string): void
}

/** RFC 8628 §3.5. */
const DEFAULT_INTERVAL_MS = 5_000
const SLOW_DOWN_MS = 5_000
const MAX_INTERVAL_MS = 60_000
/** Codes that were not handed out here are forgotten after this long. */
const DEFAULT_LIFETIME_MS = 1_800_000
/** Most codes that are remembered; the oldest is forgotten first. */
const MAX_CODES = 10_000

interface State {
  intervalMs: number
  nextMs: number
  /** Whether nobody has polled yet. */
  isNew: boolean
  readonly untilMs: number
}

/** The name of a device code in memory; the code itself is not kept. */
export function deviceKey(client: string, deviceCode: string): string {
  return hash('sha256', JSON.stringify([client, deviceCode]), 'base64')
}

/** Creates the memory of intervals. */
export function createDevicePace(clock: Clock): DevicePace {
  const states = new Map<string, State>()

  const remember = (key: string, state: State): State => {
    const now = clock.now()
    for (const [old, { untilMs }] of states) {
      if (untilMs > now && states.size < MAX_CODES) break
      states.delete(old)
    }
    states.set(key, state)
    return state
  }
  const find = (key: string): State =>
    states.get(key) ??
    remember(key, {
      intervalMs: DEFAULT_INTERVAL_MS,
      nextMs: 0,
      isNew: false,
      untilMs: clock.now() + DEFAULT_LIFETIME_MS,
    })
  const lengthen = (state: State, intervalMs: number, atLeastMs = 0) => {
    // An interval that somebody asked for is kept, however long; only our own do not grow for ever.
    state.intervalMs = Math.max(state.intervalMs, Math.min(intervalMs, MAX_INTERVAL_MS))
    state.nextMs = clock.now() + Math.max(state.intervalMs, atLeastMs)
  }

  return {
    begin(key, intervalMs, lifetimeMs) {
      const now = clock.now()
      remember(key, { intervalMs, nextMs: now + intervalMs, isNew: true, untilMs: now + lifetimeMs })
    },
    isFirst(key) {
      const state = states.get(key)
      if (state?.isNew !== true) return false
      state.isNew = false
      return true
    },
    delayMs: (key) => Math.max(0, (states.get(key)?.nextMs ?? 0) - clock.now()),
    pending(key) {
      const state = find(key)
      state.nextMs = clock.now() + state.intervalMs
    },
    slowDown(key, atLeastMs) {
      const state = find(key)
      lengthen(state, state.intervalMs + SLOW_DOWN_MS, atLeastMs)
    },
    backOff(key) {
      const state = find(key)
      lengthen(state, state.intervalMs * 2)
    },
    end: (key) => void states.delete(key),
  }
}
