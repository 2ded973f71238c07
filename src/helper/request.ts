import type { IncomingMessage } from 'node:http'
import { GrantError } from '../errors.ts'

/** A token request of a caller: each parameter once, `resource` any number of times (RFC 8707 §2). */
export interface TokenRequest {
  readonly parameters: ReadonlyMap<string, string>
  readonly resources: readonly string[]
}

/** No token request is longer; a refresh token of 16 KiB leaves room for all else. */
const MAX_BODY_BYTES = 64 * 1024
const FORM = 'application/x-www-form-urlencoded'
const JSON_TYPE = 'application/json'

/** An answer of the form `invalid_request` that says what to change (RFC 6749 §5.2). */
export function invalidRequest(description: string, status = 400): GrantError {
  return new GrantError('request_invalid', { status, error: 'invalid_request', description })
}

/**
 * Reads the token request from a body in form or JSON encoding, by its Content-Type alone.
 *
 * @throws GrantError `request_invalid` for any other encoding, a body over 64 KiB, a repeated parameter (RFC 6749 §3.2) or
 * a value that is not a string
 */
export async function readTokenRequest(request: IncomingMessage): Promise<TokenRequest> {
  const type = (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
  if (type !== FORM && type !== JSON_TYPE) {
    throw invalidRequest(`Content-Type must be ${FORM} or ${JSON_TYPE}.`)
  }
  const text = await readBody(request)
  const pairs = type === FORM ? readForm(text) : readJson(text)
  return collect(pairs)
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    chunks.push(chunk as Buffer)
    length += (chunk as Buffer).length
    if (length > MAX_BODY_BYTES) throw invalidRequest(`The body is larger than ${MAX_BODY_BYTES} bytes.`, 413)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function readForm(text: string): [string, unknown][] {
  if (text.trimStart().startsWith('{')) {
    throw invalidRequest(`The body is JSON, but Content-Type says ${FORM}: send one of the two as what it is.`)
  }
  return [...new URLSearchParams(text)]
}

function readJson(text: string): [string, unknown][] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw invalidRequest(`The body is not JSON, but Content-Type says ${JSON_TYPE}.`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidRequest('The JSON body must be an object of strings.')
  }
  return Object.entries(value).flatMap(([name, member]) =>
    name === 'resource' && Array.isArray(member)
      ? member.map((one): [string, unknown] => [name, one])
      : [[name, member]],
  ) as [string, unknown][]
}

function collect(pairs: readonly (readonly [string, unknown])[]): TokenRequest {
  const parameters = new Map<string, string>()
  const resources: string[] = []
  for (const [name, value] of pairs) {
    if (typeof value !== 'string') throw invalidRequest('Every parameter must be a string.')
    if (name === 'resource') resources.push(value)
    else if (parameters.has(name)) throw invalidRequest('A parameter occurs more than once.')
    // A parameter without a value counts as omitted (RFC 6749 §3.1).
    else if (value !== '') parameters.set(name, value)
  }
  return { parameters, resources }
}
