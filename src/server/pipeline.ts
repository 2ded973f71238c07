import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { unavailable, type CodedError } from '../errors.ts'

/**
 * The response being sent on a connection, or the last one: nothing else may be written meanwhile. On the socket itself,
 * because a WeakMap written on every request made garbage collection a fifth of all CPU time.
 */
export const CURRENT = Symbol('current response')
/** How many requests came before those ahead of them were answered, and are not answered either. */
const PIPELINED = Symbol('pipelined')
export type Connection = Socket & { [CURRENT]?: ServerResponse; [PIPELINED]?: number }

/** Most requests that may wait behind another one on their connection. A single read can bring two thousand. */
const MAX_PIPELINED = 128

/**
 * Notes a request that came before the one ahead of it was answered; costs the others nothing.
 *
 * @returns `overloaded` when too many wait already
 */
export function limitPipeline(connection: Connection, response: ServerResponse): CodedError | undefined {
  if (connection[CURRENT]?.closed ?? true) return undefined
  const waiting = (connection[PIPELINED] ?? 0) + 1
  connection[PIPELINED] = waiting
  response.once('close', () => (connection[PIPELINED] = (connection[PIPELINED] ?? 1) - 1))
  return waiting > MAX_PIPELINED ? unavailable('overloaded', { pipelined: waiting }) : undefined
}

/**
 * Behind the answer that ends a connection nothing is read any more: where a request begins may be in doubt there. Not even
 * what the parser makes of it may pile up until that answer is sent.
 */
export function leaveUnread(connection: Connection): void {
  // After the parser, which goes on reading at the end of each request.
  setImmediate(() => connection.pause())
}
