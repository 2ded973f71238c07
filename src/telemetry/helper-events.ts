import { createBoundedLines } from './bounded-lines.ts'
import { clip, clipDetail, type Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { Detail } from '../errors.ts'
import type { Clock } from '../util/clock.ts'

export interface ExchangeFinished {
  readonly requestId: string
  /** Name of the caller, or `none` when it is not known. */
  readonly caller: string
  readonly client: string
  readonly grant: string
  readonly code: string
  readonly status: number
  readonly durationMs: number
  readonly detail: Detail | undefined
  readonly shared: 'coalesced' | 'replayed' | undefined
}

const BREAKER_STATES = ['closed', 'open', 'half_open'] as const

/** What the helper made of an answer of an issuer. */
export interface AnswerValidated {
  readonly client: string
  readonly grant: string
  readonly result: 'valid' | 'refused' | 'keys_unavailable'
  readonly heldMs: number
  readonly validated: { readonly idToken: string; readonly accessToken: string; readonly subject: string } | undefined
  readonly detail: Detail | undefined
}

/** What the token helper reports. */
export interface HelperEvents {
  readonly exchangeFinished: (outcome: ExchangeFinished) => void
  readonly exchangeCoalesced: (client: string) => void
  /** Tokens that a client got for itself could not be renewed ahead of their end. */
  readonly renewalFailed: (client: string, code: string) => void
  readonly exchangeReplayed: (client: string) => void
  readonly exchangeUnshared: (client: string) => void
  readonly refreshTokenSealed: (client: string, operation: 'seal' | 'open' | 'refuse') => void
  readonly breakerChanged: (issuer: string, state: (typeof BREAKER_STATES)[number]) => void
  /** The store became usable, or stopped being so for a reason. */
  readonly storeChanged: (fault: string | undefined, onFailure: 'local' | 'refuse') => void
  /** An answer of an issuer was validated, or was not. */
  readonly answerValidated: (outcome: AnswerValidated) => void
  /** The refresh token of an answer that was refused was revoked, or was not for this reason. */
  readonly refusedTokenRevoked: (client: string, failure: string | undefined) => void
}

/** Lines about callers that are not known: enough to see who tries what, and no more than a disk can bear for ever. */
const STRANGERS = { perSecond: 10, burst: 100, tellAfterMs: 10_000 } as const

/** Creates the functions through which the token helper reports. */
export function createHelperEvents(log: Log, metrics: Metrics, clock: Clock): HelperEvents {
  const leftAlone = new Set<string>()
  const tell = (lines: number) => log.warn('lines about callers that are not known were left out', { lines })
  const mayWriteOfStranger = createBoundedLines({ ...STRANGERS, clock, tell })
  return {
    exchangeFinished({ requestId, caller, client, grant, code, status, durationMs, detail, shared }) {
      metrics.count('bearward_helper_exchanges_total', { client, grant, code })
      metrics.observe('bearward_helper_duration_seconds', durationMs / 1000, { grant })
      if (caller === 'none' && !mayWriteOfStranger()) return
      const write = status >= 500 ? log.warn : log.info
      write('exchange', {
        request_id: requestId,
        caller,
        client,
        grant,
        code,
        status,
        shared,
        duration_ms: Math.round(durationMs * 1000) / 1000,
        detail: detail === undefined ? undefined : clipDetail(detail),
      })
    },

    exchangeCoalesced: (client) => metrics.count('bearward_helper_coalesced_total', { client }),
    exchangeReplayed: (client) => metrics.count('bearward_helper_replayed_total', { client }),
    exchangeUnshared: (client) => metrics.count('bearward_helper_unshared_total', { client }),
    refreshTokenSealed: (client, operation) => metrics.count('bearward_helper_sealed_total', { client, operation }),

    breakerChanged(issuer, state) {
      for (const one of BREAKER_STATES) {
        metrics.set('bearward_helper_breaker_state', one === state ? 1 : 0, { issuer, state: one })
      }
      // It is tried and left alone again and again: said once.
      const write = state === 'open' && !leftAlone.has(issuer) ? log.warn : state === 'closed' ? log.info : log.debug
      write(BREAKER_LINES[state], { issuer })
      if (state === 'closed') leftAlone.delete(issuer)
      else leftAlone.add(issuer)
    },

    storeChanged(fault, onFailure) {
      if (fault === undefined) log.info('the store can be used')
      else log.warn(`the store cannot be used; ${STORE_FAILURE[onFailure]}`, { reason: clip(fault) })
    },

    renewalFailed(client, code) {
      log.warn('the token of a client could not be renewed yet; the old one is used on', { client, code })
    },

    answerValidated({ client, grant, result, heldMs, validated, detail }) {
      metrics.count('bearward_helper_validations_total', { client, result })
      const write = result === 'valid' ? log.debug : log.error
      write(result === 'valid' ? 'answer validated' : 'answer of the issuer withheld', {
        client,
        grant,
        result,
        held_ms: heldMs,
        id_token: validated?.idToken,
        access_token: validated?.accessToken,
        subject: validated?.subject,
        detail: detail === undefined ? undefined : clipDetail(detail),
      })
    },

    refusedTokenRevoked(client, failure) {
      if (failure === undefined) log.info('refresh token of the withheld answer revoked', { client })
      else log.warn('refresh token of the withheld answer not revoked', { client, reason: failure })
    },
  }
}

const BREAKER_LINES = {
  open: 'the issuer fails and is left alone; grants are refused unspent',
  half_open: 'the issuer is tried again',
  closed: 'the issuer answers again',
} as const

const STORE_FAILURE = {
  local: 'until it can, grants are spent without it, and another replica may spend the same ones, too',
  refuse: 'until it can, grants are refused unspent',
} as const
