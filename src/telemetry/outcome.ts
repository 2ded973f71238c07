import type { Code, Detail } from '../errors.ts'
import { clip, clipDetail, type Log } from './log.ts'
import type { Metrics } from './metrics.ts'

/** One finished request: exactly what is logged and counted. */
export interface Outcome {
  readonly requestId: string
  readonly method: string
  /** Path without the query, which may hold secrets. */
  readonly path: string
  readonly peer: string
  /** Name of the rule, or `none` when the request was refused before a rule was found. */
  readonly rule: string
  readonly code: Code | 'ok'
  /** Whether the gate permitted it, whatever the upstream made of it. */
  readonly permitted: boolean
  /** Status sent; 499 when the caller left before it was complete. */
  readonly status: number
  /** Name of the token's issuer. */
  readonly issuer: string | undefined
  readonly clientId: string | undefined
  readonly durationMs: number
  /** Time the gate took. */
  readonly decisionMs: number
  readonly detail: Detail | undefined
}

/** Writes one log line per request and updates the metrics. */
export type OutcomeRecorder = (outcome: Outcome) => void

/** @param accessLog - whether requests that went well get a line too; refusals and failures always do */
export function createOutcomeRecorder(log: Log, metrics: Metrics, accessLog: () => boolean): OutcomeRecorder {
  return (outcome) => {
    const { rule, code, status, durationMs, decisionMs, permitted } = outcome
    metrics.requests.add(rule, code, Math.floor(status / 100))
    metrics.duration[permitted ? 'forwarded' : 'refused'].observe(durationMs / 1000)
    metrics.decision.observe(decisionMs / 1000)
    if (code === 'ok' && !accessLog()) return
    log.writeJson(status >= 500 ? 'warn' : 'info', 'request', toMembers(outcome))
  }
}

/** The members of the line in JSON, put together by hand: through an object it cost as much as the whole decision. */
function toMembers(outcome: Outcome): string {
  const { issuer, clientId, detail } = outcome
  return (
    `"request_id":${quote(outcome.requestId)},"method":${quote(outcome.method)},"path":${quote(clip(outcome.path))}` +
    `,"peer":${quote(outcome.peer)},"rule":${quote(outcome.rule)},"code":"${outcome.code}","status":${outcome.status}` +
    (issuer === undefined ? '' : `,"issuer":${quote(issuer)}`) +
    (clientId === undefined ? '' : `,"client_id":${quote(clip(clientId))}`) +
    `,"duration_ms":${round(outcome.durationMs)},"decision_ms":${round(outcome.decisionMs)}` +
    (detail === undefined ? '' : `,"detail":${JSON.stringify(clipDetail(detail))}`)
  )
}

/** A JSON string (RFC 8259 §7); most texts need no escape. */
function quote(text: string): string {
  return /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(text) ? `"${text}"` : JSON.stringify(text)
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
