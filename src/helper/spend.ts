import { hash } from 'node:crypto'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { createSingleFlight } from '../util/single-flight.ts'

/** One credential to be spent once. */
export interface Spend {
  /** Name of the client in configuration. */
  readonly client: string
  /** Name of the caller. */
  readonly caller: string
  /** The refresh token, authorization code or device code. */
  readonly credential: string
  /** Everything else that makes two requests the same; survives JSON. */
  readonly parameters: unknown
  /** How long identical duplicates of the same caller get the answer again, in milliseconds; 0 for not at all. */
  readonly replayWindowMs: number
  /** Sends and validates. */
  readonly run: () => Promise<TokenEndpointResponse>
}

/** Spends credentials; the promise does not depend on who waits for it. */
export interface Spender {
  spend(spend: Spend): Promise<TokenEndpointResponse>
}

export interface SpenderOptions {
  /** Called for every caller that joined a spend under way. */
  readonly onCoalesced: (client: string) => void
}

/**
 * Creates the spender. Concurrent spends of one credential become one request to the issuer, whose answer all callers
 * get: with rotation, a second request would revoke the whole family (RFC 9700 §4.14.2), and a code that comes twice may
 * revoke what it was spent for (RFC 6749 §4.1.2).
 */
export function createSpender({ onCoalesced }: SpenderOptions): Spender {
  const share = createSingleFlight<TokenEndpointResponse>()
  return {
    spend({ client, credential, parameters, run }) {
      let started = false
      const key = hash('sha256', JSON.stringify([client, credential, parameters]), 'base64')
      const promise = share(key, () => {
        started = true
        return run()
      })
      if (!started) onCoalesced(client)
      return promise
    },
  }
}
