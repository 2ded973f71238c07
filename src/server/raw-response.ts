import type { RefusalCode } from '../errors.ts'
import { toProblemResponse } from '../http/problem.ts'

/** The answer to bytes of which no request can be made, in full; the connection ends with it. */
export function toRawResponse(code: RefusalCode, requestId: string): string {
  const { status, headers, body } = toProblemResponse(code, requestId)
  const lines = [`HTTP/1.1 ${status} Refused`]
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
  return `${lines.join('\r\n')}\r\nConnection: close\r\n\r\n${body}`
}
