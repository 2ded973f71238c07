import { GrantError, type GrantCode } from '../errors.ts'
import { backoffMs } from '../util/backoff.ts'
import type { Clock } from '../util/clock.ts'

/** `half_open` while one request tries whether the issuer is well again. */
export type BreakerState = 'closed' | 'open' | 'half_open'

/** Leaves an issuer alone that fails, so that it is not kept down and callers do not wait for nothing. */
export interface Breaker {
  /**
   * Runs a request to an issuer, unless the issuer is left alone.
   *
   * @throws GrantError `issuer_unavailable` (not spent); whatever `request` throws
   */
  run<T>(issuer: string, request: () => Promise<T>): Promise<T>
  state(issuer: string): BreakerState
}

export interface BreakerOptions {
  readonly clock: Clock
  /** The state of an issuer changed. */
  readonly onChange: (issuer: string, state: BreakerState) => void
}

/** What tells that an issuer is not well. */
const FAILURES: ReadonlySet<GrantCode> = new Set([
  'issuer_unreachable',
  'issuer_timeout',
  'issuer_error',
  'outcome_unknown',
])
/** What tells nothing about the issuer, because it was not asked. */
const NEUTRAL: ReadonlySet<GrantCode> = new Set(['keys_unavailable', 'credentials_unavailable', 'internal_error'])

/** Failures in a row, after which it is left alone. */
const THRESHOLD = 5
/** With jitter between a half and the whole, so that replicas do not try again at once: 1 s, doubling up to 30 s. */
const PAUSE = { baseMs: 1_000, maxMs: 30_000 }

interface Circuit {
  /** In a row. */
  failures: number
  /** How often it was opened without a success in between. */
  openings: number
  /** Absent while requests pass. */
  openUntilMs: number | undefined
  probing: boolean
}

/** Creates a breaker with a circuit for each issuer, by name. */
export function createBreaker({ clock, onChange }: BreakerOptions): Breaker {
  const circuits = new Map<string, Circuit>()
  const circuitOf = (issuer: string): Circuit => {
    const circuit = circuits.get(issuer) ?? { failures: 0, openings: 0, openUntilMs: undefined, probing: false }
    circuits.set(issuer, circuit)
    return circuit
  }
  const failed = (issuer: string, circuit: Circuit, isProbe: boolean): void => {
    circuit.failures += 1
    // What was sent before it opened says nothing new.
    if (!isProbe && (circuit.failures < THRESHOLD || circuit.openUntilMs !== undefined)) return
    circuit.openings += 1
    circuit.openUntilMs = clock.now() + backoffMs(circuit.openings, PAUSE)
    onChange(issuer, 'open')
  }
  const succeeded = (issuer: string, circuit: Circuit): void => {
    const wasOpen = circuit.openUntilMs !== undefined
    Object.assign(circuit, { failures: 0, openings: 0, openUntilMs: undefined })
    if (wasOpen) onChange(issuer, 'closed')
  }

  return {
    async run(issuer, request) {
      const circuit = circuitOf(issuer)
      const isProbe = enter(circuit, clock.now())
      if (isProbe) onChange(issuer, 'half_open')
      try {
        const result = await request()
        succeeded(issuer, circuit)
        return result
      } catch (error) {
        const verdict = judge(error)
        if (verdict === 'failure') failed(issuer, circuit, isProbe)
        else if (verdict === 'success') succeeded(issuer, circuit)
        else if (isProbe) onChange(issuer, 'open')
        throw error
      } finally {
        if (isProbe) circuit.probing = false
      }
    },
    state(issuer) {
      const { openUntilMs, probing } = circuitOf(issuer)
      return openUntilMs === undefined ? 'closed' : probing ? 'half_open' : 'open'
    },
  }
}

/**
 * @returns whether the request is the one that tries
 * @throws GrantError `issuer_unavailable`
 */
function enter(circuit: Circuit, nowMs: number): boolean {
  if (circuit.openUntilMs === undefined) return false
  // No pause is longer than the longest, even when the clock was set back meanwhile.
  circuit.openUntilMs = Math.min(circuit.openUntilMs, nowMs + PAUSE.maxMs)
  const leftMs = circuit.openUntilMs - nowMs
  if (leftMs > 0 || circuit.probing) throw unavailable(Math.max(leftMs, 1_000))
  circuit.probing = true
  return true
}

function judge(error: unknown): 'success' | 'failure' | 'neutral' {
  if (!(error instanceof GrantError) || NEUTRAL.has(error.code)) return 'neutral'
  return FAILURES.has(error.code) ? 'failure' : 'success'
}

function unavailable(leftMs: number): GrantError {
  return new GrantError('issuer_unavailable', {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'The identity provider failed several times in a row and is left alone; the grant was not spent.',
    headers: { 'retry-after': String(Math.ceil(leftMs / 1000)) },
  })
}
