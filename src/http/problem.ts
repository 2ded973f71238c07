import { STATUS_CODES } from 'node:http'
import { CODES, type Code } from '../errors.ts'
import { toBearerChallenge } from './challenge.ts'

export interface ProblemResponse {
  readonly status: number
  /** Flat header list, `Content-Length` included. */
  readonly headers: string[]
  readonly body: string
}

/**
 * The response for a code: status, challenge, `Retry-After`, and a problem document (RFC 9457) whose `code` member is the
 * same word as in the log and the metrics. Holds nothing of the request and nothing of what was expected.
 *
 * @param scope - for the challenge of `scope_insufficient`: the scopes the rule asks for, space-delimited
 */
export function toProblemResponse(code: Code, requestId: string, scope?: string): ProblemResponse {
  const { status, description, retryAfterSeconds } = CODES[code]
  const body = JSON.stringify({
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail: description,
    code,
    request_id: requestId,
  })
  const headers = [
    'Content-Type',
    'application/problem+json',
    'Content-Length',
    String(Buffer.byteLength(body)),
    'Cache-Control',
    'no-store',
  ]
  const challenge = toBearerChallenge(code, scope)
  if (challenge !== undefined) headers.push('WWW-Authenticate', challenge)
  if (retryAfterSeconds !== undefined) headers.push('Retry-After', String(retryAfterSeconds))
  return { status, headers, body }
}
