import type { ServerResponse } from 'node:http'
import type { RefusalCode } from '../errors.ts'

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
