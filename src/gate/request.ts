import type { FieldList } from '../http/headers.ts'

/** What the gate decides on: the view of a request that every door must produce. */
export interface GateRequest {
  readonly method: string
  /** The request target as received. */
  readonly target: string
  /** All header fields as received. */
  readonly fields: FieldList
}
