import { METHODS } from 'node:http'
import { refusal, type Refusal } from '../errors.ts'
import { MessageFault, readContentLength, readFieldLine } from './field-line.ts'

/** The head of a request as received: request line and header fields (RFC 9112 §3 and §5). */
export interface Http1Request {
  readonly method: string
  readonly target: string
  readonly minorVersion: 0 | 1
  /** Flat list of names and values as received, one character per byte. */
  readonly fields: string[]
  /** How the end of the body is told; `none` for a request without one. */
  readonly framing: 'none' | 'length' | 'chunked'
  /** For `length`: bytes of the body; otherwise 0. */
  readonly length: number
  /** Whether the caller keeps the connection for another request. */
  readonly persistent: boolean
  /** Whether the caller waits for `100 Continue` before it sends its body. */
  readonly expectsContinue: boolean
  /** Whether the caller asks to switch protocols. */
  readonly upgrades: boolean
  /** Why the request must be refused, though it can be read: where it ends is in doubt, and the connection with it. */
  readonly fault: Refusal | undefined
}

/** The empty line behind the last field, with the end of that. */
export const END_OF_HEAD = '\r\n\r\n'
const REQUEST_LINE = /^([A-Z-]{1,32}) ([\x21-\x7e]+) HTTP\/1\.([01])$/
/** A path, the form with a scheme, or the asterisk (RFC 9112 §3.2). */
const TARGET = /^(?:\/|\*$|[a-z]+:\/\/(?:[\w.~:-]*@)?[\w.~:[\]-]*(?:[/?]|$))/i
const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS)
/** Bytes that no head holds: control characters, and line breaks that are not CRLF. */
const ILLEGAL = /[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n|$)|(?<!\r)\n/

const TAB = 0x09

interface Draft {
  length: number | undefined
  chunked: boolean
  /** All `Connection` values, each with a comma ahead. */
  connection: string
  hasUpgrade: boolean
  /** Each `Expect` value, with a comma ahead. */
  expected: string
  /** The first thing found wrong with its frame. */
  reason: string | undefined
}

/**
 * Reads the head of a request, strictly: nothing passes that another parser could read differently. What node:http's parser
 * refuses is refused here as well, and more: any coding but `chunked`, any second length, chunks in HTTP/1.0, any other
 * protocol or version.
 *
 * @param text - from the request line to the line break before the empty line, that one included
 * @throws MessageFault when no request can be made of it; where only its frame is in doubt it has a `fault` instead
 */
export function readHttp1Request(text: string): Http1Request {
  const lineEnd = text.indexOf('\r\n')
  const match = REQUEST_LINE.exec(text.slice(0, lineEnd))
  if (match === null || !KNOWN_METHODS.has(match[1] as string)) throw new MessageFault('request line')
  // Of CONNECT it is another, and that is refused for its method (RFC 9112 §3.2.3).
  if (!TARGET.test(match[2] as string) && match[1] !== 'CONNECT') throw new MessageFault('request target')
  const fields: string[] = []
  const draft: Draft = {
    length: undefined,
    chunked: false,
    connection: '',
    hasUpgrade: false,
    expected: '',
    reason: undefined,
  }
  for (let at = lineEnd + 2; at < text.length;) {
    at = readFieldLine(text, at, fields)
    const name = fields[fields.length - 2] as string
    // By length first: only few names matter, and most fields are none of them.
    if (NAME_LENGTHS[name.length] === 1) note(name.toLowerCase(), fields[fields.length - 1] as string, draft)
    // To some parsers a tab there belongs to the coding.
    if (draft.chunked && name.length === 17 && text.charCodeAt(at - 3) === TAB) draft.reason = 'transfer-encoding'
  }
  return complete(match as unknown as RequestLine, fields, draft)
}

type RequestLine = readonly [string, method: string, target: string, minorVersion: '0' | '1']

function complete([, method, target, minor]: RequestLine, fields: string[], draft: Draft): Http1Request {
  const { length = 0, chunked, connection, expected } = draft
  return {
    method,
    target,
    minorVersion: minor === '1' ? 1 : 0,
    fields,
    framing: chunked ? 'chunked' : length > 0 ? 'length' : 'none',
    length,
    persistent: !names(connection, CLOSE) && (minor === '1' || names(connection, KEEP_ALIVE)),
    expectsContinue: minor === '1' && expected === ',100-continue',
    upgrades: minor === '1' && draft.hasUpgrade && names(connection, UPGRADE),
    fault: findFault(method, minor, draft),
  }
}

const CLOSE = /,[ \t]*close[ \t]*(?:,|$)/
const KEEP_ALIVE = /,[ \t]*keep-alive[ \t]*(?:,|$)/
const UPGRADE = /,[ \t]*upgrade[ \t]*(?:,|$)/

/** Whether a connection option is among those named; most requests name none. */
function names(connection: string, option: RegExp): boolean {
  return connection !== '' && option.test(connection)
}

function findFault(method: string, minor: '0' | '1', draft: Draft): Refusal | undefined {
  const reason = draft.reason ?? findContradiction(minor, draft)
  if (reason !== undefined) return refusal('header_invalid', { reason })
  return method === 'CONNECT' ? refusal('method_not_supported', { method }) : undefined
}

/** Where two fields, or a field and the version, say different things about the end of the body (RFC 9112 §6.1 and §6.3). */
function findContradiction(minor: '0' | '1', { length, chunked }: Draft): string | undefined {
  if (!chunked) return undefined
  if (length !== undefined) return 'content-length beside transfer-encoding'
  return minor === '0' ? 'transfer-encoding in HTTP/1.0' : undefined
}

/**
 * Looks at a head of which a part has come: nobody should wait for the rest of what is no request.
 *
 * @throws MessageFault
 */
export function checkUnfinished(text: string): void {
  if (ILLEGAL.test(text)) throw new MessageFault('illegal byte')
}

/** The lengths of `expect`, `upgrade`, `connection`, `content-length` and `transfer-encoding`. */
const NAME_LENGTHS = new Uint8Array(256)
for (const length of [6, 7, 10, 14, 17]) NAME_LENGTHS[length] = 1

function note(name: string, value: string, draft: Draft): void {
  switch (name) {
    case 'content-length': {
      const length = readContentLength(value)
      if (length === undefined || draft.length !== undefined) draft.reason = 'content-length'
      draft.length = length ?? 0
      return
    }
    case 'transfer-encoding':
      // A body in another coding would arrive without the field that says so.
      if (draft.chunked || value.toLowerCase() !== 'chunked') draft.reason = 'transfer-encoding'
      draft.chunked = true
      return
    case 'connection':
      draft.connection += `,${value.toLowerCase()}`
      return
    case 'upgrade':
      draft.hasUpgrade = true
      return
    case 'expect':
      draft.expected += `,${value.toLowerCase()}`
  }
}

/** From here on it is worth a look where the head ends before a text is made, in bytes. */
const LARGE_BYTES = 2048
const CR = 0x0d
const P = 0x50
const R = 0x52

/**
 * Of how many bytes of a chunk a text is to be made to find a head in it: not of a body that came along in a large one, or of
 * further requests. Of all where another end is looked for: behind empty lines, and in the preface of HTTP/2, which begins
 * as PROPFIND does.
 */
export function lengthOfHead(chunk: Buffer): number {
  if (chunk.length < LARGE_BYTES || chunk[0] === CR || (chunk[0] === P && chunk[1] === R)) return chunk.length
  const end = chunk.indexOf(END_OF_HEAD, 0, 'latin1')
  return end === -1 ? chunk.length : end + END_OF_HEAD.length
}

/** Where the first line begins that is not empty: some callers end a body with a line break too many (RFC 9112 §2.2). */
export function skipEmptyLines(text: string): number {
  let start = 0
  while (text.startsWith('\r\n', start)) start += 2
  return start
}
