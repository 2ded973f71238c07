import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { CodedError } from '../errors.ts'

/** The connection of a caller that asks to switch protocols: nobody else reads it any more. */
export interface Tunnel {
  readonly socket: Duplex & { setTimeout(ms: number): unknown }
  /** What came behind the header. */
  readonly early: Buffer
}

/**
 * A request as it comes from the caller, in the form that HTTP/1.1 gives it (server/http1-call.ts, server/http2-call.ts).
 */
export interface CallerRequest {
  readonly httpVersionMajor: number
  readonly httpVersionMinor: number
  readonly method?: string | undefined
  /** The request target as received. */
  readonly url?: string | undefined
  /** All header fields as received, flat; `Host` among them. */
  readonly rawHeaders: readonly string[]
  /** The trailer fields, flat; complete when the body has ended. */
  readonly rawTrailers: readonly string[]
  /** The caller's connection. */
  readonly socket: Socket
  /** When it asks to switch protocols. */
  readonly tunnel?: Tunnel
  on(event: 'data', listener: (chunk: Buffer) => void): unknown
  /** `end`: the body is there to its last byte; it does not come for a body that was cut off. */
  on(event: 'end' | 'error', listener: () => void): unknown
  /** Tells of a body that turns out to be malformed, where the protocol is not checked by a library. `end` does not come. */
  onFault?(listener: (fault: CodedError) => void): void
  pause(): unknown
  resume(): unknown
}

/** The way of a response to the caller. */
export interface CallerResponse {
  statusCode: number
  /** Cleared to close the connection of HTTP/1.1 after the response. */
  shouldKeepAlive: boolean
  readonly headersSent: boolean
  readonly destroyed: boolean
  /** Whether the whole response has left. */
  readonly writableFinished: boolean
  /** @param fields - flat list of names and values; may be changed by the call */
  writeHead(status: number, fields: string[]): unknown
  writeContinue(): void
  /** @param hints - values of `Link` fields. Throws for what is no link */
  writeEarlyHints(hints: { link: string[] }): void
  /** @returns false when the caller cannot take more for now; `drain` tells when it can */
  write(chunk: Buffer): boolean
  /** With an empty text: sends the head at once instead of together with what follows. */
  write(chunk: string, encoding: BufferEncoding): boolean
  /** To be called before `end`; forgotten where the caller's protocol cannot carry them. */
  addTrailers(fields: [string, string][]): unknown
  end(chunk?: Buffer): unknown
  end(chunk: string, encoding?: BufferEncoding): unknown
  /** Cuts the response off, so that it cannot be mistaken for complete. */
  destroy(): unknown
  on(event: 'error' | 'close', listener: () => void): unknown
  once(event: 'drain', listener: () => void): unknown
}

/**
 * Handles one request.
 *
 * @param expectsContinue - the caller waits for `100 Continue` before it sends its body
 * @param fault - why the request must be refused whatever it asks for; `undefined` for most
 */
export type CallerHandler = (
  request: CallerRequest,
  response: CallerResponse,
  expectsContinue: boolean,
  fault?: CodedError,
) => void
