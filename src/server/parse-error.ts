import type { IncomingMessage, ServerResponse } from 'node:http'
import { refusal, type Refusal, type RefusalCode } from '../errors.ts'
import { findField } from '../http/headers.ts'

/**
 * Whether an error of a connection means that its peer has left: nobody is there to be answered, and a request in flight
 * tells of it by its own end.
 *
 * @param current - the response being sent on the connection, or the last one
 */
export function isAbort({ code }: NodeJS.ErrnoException, current: ServerResponse | undefined): boolean {
  if (code === 'ECONNRESET' || code === 'EPIPE') return true
  return code === 'HPE_INVALID_EOF_STATE' && current !== undefined && !current.req.complete
}

/** What is wrong with a request that the parser of node:http gave up, by the code of its error. */
export function toRefusalCode(code: string | undefined): RefusalCode {
  if (code === 'HPE_HEADER_OVERFLOW') return 'header_too_large'
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'request_timeout'
  if (code === 'HPE_PAUSED_H2_UPGRADE') return 'upgrade_not_supported'
  return 'header_invalid'
}

/**
 * Why a request must be refused whose frame the parser of node:http let through: it takes any version for HTTP/1.x, and
 * chunks from those that cannot know them (RFC 9112 §6.1).
 *
 * @returns `header_invalid`, or `undefined` for most
 */
export function findHttp1Fault(request: IncomingMessage): Refusal | undefined {
  const { httpVersionMajor, httpVersionMinor, rawHeaders } = request
  if (httpVersionMajor === 1 && httpVersionMinor === 1) return undefined
  if (httpVersionMajor !== 1) return refusal('header_invalid', { reason: 'version' })
  const isChunked = findField(rawHeaders, 'transfer-encoding').count > 0
  return isChunked ? refusal('header_invalid', { reason: 'transfer-encoding in HTTP/1.0' }) : undefined
}
