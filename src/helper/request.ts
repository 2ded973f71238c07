import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import { readObject } from '../token/json.ts'
import { invalidRequest } from './grant-errors.ts'

/** A request of a caller: each parameter once, but for those that may be repeated. */
export interface TokenRequest {
  readonly parameters: ReadonlyMap<string, string>
  /** RFC 8707 §2. */
  readonly resources: readonly string[]
  /** RFC 8693 §2.1. */
  readonly audiences: readonly string[]
}

/** No token request is longer; a refresh token of 16 KiB leaves room for all else. */
const MAX_BODY_BYTES = 64 * 1024
/** Nor does one take longer to arrive, in milliseconds. */
const BODY_TIMEOUT_MS = 10_000
const FORM = 'application/x-www-form-urlencoded'
const JSON_TYPE = 'application/json'

/**
 * Reads the parameters from a body in form or JSON encoding, by its Content-Type alone.
 *
 * @throws GrantError `request_invalid` for any other encoding, a body over 64 KiB or over 10 s, a repeated parameter
 * (RFC 6749 §3.2) or a value that is not a string
 */
export async function readTokenRequest(request: IncomingMessage): Promise<TokenRequest> {
  const type = (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
  if (type !== FORM && type !== JSON_TYPE) {
    throw invalidRequest(`Content-Type must be ${FORM} or ${JSON_TYPE}.`)
  }
  const bytes = await readBody(request)
  if (!isUtf8(bytes)) throw invalidRequest('The body is not UTF-8.')
  return collect(type === FORM ? readForm(bytes.toString('utf8')) : readJson(bytes))
}

function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    const timer = setTimeout(() => fail(invalidRequest('The body did not arrive in time.', 408)), BODY_TIMEOUT_MS)
    const fail = (error: Error) => {
      clearTimeout(timer)
      request.pause().removeAllListeners('data')
      reject(error)
    }
    request.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length > MAX_BODY_BYTES) fail(invalidRequest(`The body is larger than ${MAX_BODY_BYTES} bytes.`, 413))
    })
    request.on('end', () => {
      clearTimeout(timer)
      resolve(Buffer.concat(chunks))
    })
    request.on('error', () => fail(invalidRequest('The body was cut off.')))
    request.on('close', () => clearTimeout(timer))
  })
}

function readForm(text: string): [string, unknown][] {
  if (text.trimStart().startsWith('{')) {
    throw invalidRequest(
      `The body is JSON, but Content-Type says ${FORM}: send Content-Type: ${JSON_TYPE}, or the parameters as a form.`,
    )
  }
  return [...new URLSearchParams(text)]
}

function readJson(bytes: Buffer): [string, unknown][] {
  const value = readObject(bytes)
  if (typeof value === 'string') throw invalidRequest(`Content-Type says ${JSON_TYPE}, but the body ${value}.`)
  return Object.entries(value).flatMap(([name, member]): [string, unknown][] =>
    REPEATABLE.has(name) && Array.isArray(member) ? member.map((one) => [name, one]) : [[name, member]],
  )
}

const REPEATABLE = new Set(['resource', 'audience'])

function collect(pairs: readonly (readonly [string, unknown])[]): TokenRequest {
  const parameters = new Map<string, string>()
  const repeated = { resource: [] as string[], audience: [] as string[] }
  const seen = new Set<string>()
  for (const [name, value] of pairs) {
    if (typeof value !== 'string') throw invalidRequest('Every parameter must be a string.')
    const list = REPEATABLE.has(name) ? repeated[name as keyof typeof repeated] : undefined
    if (list === undefined && seen.has(name)) throw invalidRequest('A parameter occurs more than once.')
    seen.add(name)
    // A parameter without a value counts as omitted (RFC 6749 §3.1).
    if (value !== '') list === undefined ? parameters.set(name, value) : list.push(value)
  }
  return { parameters, resources: repeated.resource, audiences: repeated.audience }
}
