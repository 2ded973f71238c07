import type { Code, Detail } from '../errors.ts'
import type { Findings } from '../gate/gate.ts'
import type { Rule } from '../gate/rules.ts'
import type { Peer } from '../http/forwarded.ts'
import type { CallerRequest, CallerResponse } from '../server/caller.ts'
import type { VerifiedToken } from '../token/verifier.ts'

/** One request on its way through, from its header to the end of its response: one object, filled in as it goes. */
export class Exchange implements Findings {
  readonly request: CallerRequest
  readonly response: CallerResponse
  readonly requestId: string
  readonly peer: Peer
  /** The caller waits for `100 Continue` before it sends its body. */
  readonly expectsContinue: boolean
  readonly startedMs = performance.now()
  /** When the gate had decided. */
  decidedMs: number | undefined
  permitted = false
  /** Whether it counts no more as in flight. */
  released = false
  /** Whether the connection became a WebSocket. */
  tunnelled = false
  declare rule?: Rule
  declare token?: VerifiedToken
  /** Why it failed; `ok` as long as it did not. */
  code: Code | 'ok' = 'ok'
  detail: Detail | undefined
  /** The status of a refusal; 0 as long as there is none. A call of gRPC is told it in its own way. */
  refusedAs = 0
  /** The request to the upstream, once there is one. */
  carrier: { cancel(): void } | undefined

  constructor(parts: Pick<Exchange, 'request' | 'response' | 'requestId' | 'peer' | 'expectsContinue'>) {
    this.request = parts.request
    this.response = parts.response
    this.requestId = parts.requestId
    this.peer = parts.peer
    this.expectsContinue = parts.expectsContinue
    this.decidedMs = undefined
    this.detail = undefined
    this.carrier = undefined
  }
}
