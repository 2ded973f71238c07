/** The head of a response as received: status line and header fields (RFC 9112 §4 and §5). */
export interface ResponseHead {
  readonly status: number
  /** Flat list of names and values as received, one character per byte. */
  readonly fields: string[]
  /** How the end of the body is told (RFC 9112 §6.3), apart from what method and status say. */
  readonly framing: 'length' | 'chunked' | 'close'
  /** For `length`: bytes of the body; otherwise -1. */
  readonly length: number
  /** Whether the connection may carry another request. */
  readonly persistent: boolean
  /** Milliseconds after which the server closes an idle connection, as it announced; `undefined` when it did not. */
  readonly keepAliveMs: number | undefined
  /** Whether the body may be silent for as long as nothing happens: a stream of events, or of gRPC. */
  readonly mayBeSilent: boolean
}

/** The peer does not speak HTTP/1.1, or not in a way that can be read in one way only. The text is for the log. */
export class ResponseFault extends Error {
  override readonly name = 'ResponseFault'
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const LENGTH = /^\d{1,15}$/

interface Draft {
  status: number
  fields: string[]
  length: number
  chunked: boolean
  persistent: boolean
  keepAliveMs: number | undefined
  mayBeSilent: boolean
}

/**
 * Reads the head of a response, strictly: whatever two parsers could read differently is refused, above all where the
 * body ends.
 *
 * @param text - from the status line to the line break before the empty line, that one included
 * @throws ResponseFault for a line without name or colon, a folded line, an illegal character, more than one or a
 * malformed Content-Length, one beside Transfer-Encoding, or a Transfer-Encoding other than `chunked`
 */
export function readResponseHead(text: string): ResponseHead {
  const lineEnd = text.indexOf('\r\n')
  const match = STATUS_LINE.exec(text.slice(0, lineEnd))
  if (match === null) throw new ResponseFault('status line')
  const draft: Draft = {
    status: Number(match[2]),
    fields: [],
    length: -1,
    chunked: false,
    persistent: match[1] === '1',
    keepAliveMs: undefined,
    mayBeSilent: false,
  }
  for (let start = lineEnd + 2; start < text.length;) start = readField(text, start, draft)
  const { status, fields, length, chunked, persistent, keepAliveMs, mayBeSilent } = draft
  if (chunked && length >= 0) throw new ResponseFault('Content-Length beside Transfer-Encoding')
  const framing = chunked ? 'chunked' : length >= 0 ? 'length' : 'close'
  return { status, fields, framing, length, persistent, keepAliveMs, mayBeSilent }
}

/** Reads one field; returns where the next begins. */
function readField(text: string, start: number, draft: Draft): number {
  const end = text.indexOf('\r\n', start)
  const colon = text.indexOf(':', start)
  if (end === -1 || colon === -1 || colon > end) throw new ResponseFault('header line')
  const name = text.slice(start, colon)
  const value = readValue(text, colon + 1, end)
  if (!TOKEN.test(name) || !VALUE.test(value)) throw new ResponseFault('header field')
  draft.fields.push(name, value)
  // By length first: only few names matter, and most fields are none of them.
  if (name.length === 14) readLength(name, value, draft)
  else if (name.length === 17) readCoding(name, value, draft)
  else if (name.length === 10) readConnection(name, value, draft)
  else if (name.length === 12 && allowsSilence(value) && name.toLowerCase() === 'content-type') draft.mayBeSilent = true
  return end + 2
}

const SILENT_TYPE = /^(?:text\/event-stream|application\/grpc(?:[+-][\w.+-]*)?)(?![^\s;])/i

/**
 * Whether a response of this Content-Type may be silent for as long as it likes: server-sent events (HTML §9.2), and gRPC,
 * whose streams may wait for hours for the next message, and whose calls have deadlines of their own.
 */
export function allowsSilence(contentType: string): boolean {
  return SILENT_TYPE.test(contentType)
}

/**
 * A value without the spaces and tabs around it (RFC 9110 §5.5). By `trim()` it would lose other characters as well: those
 * that no value may hold, and the last byte of a UTF-8 `à`, which looks like a space that does not break.
 */
function readValue(text: string, from: number, to: number): string {
  let [start, end] = [from, to]
  while (start < end && isBlank(text.charCodeAt(start))) start += 1
  while (start < end && isBlank(text.charCodeAt(end - 1))) end -= 1
  return text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/**
 * Reads one trailer field (RFC 9112 §7.1.2), as strictly as a header field, and adds it to a flat list.
 *
 * @param line - without its line break
 * @throws ResponseFault
 */
export function readTrailerField(line: string, fields: string[]): void {
  const colon = line.indexOf(':')
  const name = line.slice(0, Math.max(0, colon))
  const value = readValue(line, colon + 1, line.length)
  if (!TOKEN.test(name) || !VALUE.test(value)) throw new ResponseFault('trailer field')
  fields.push(name, value)
}

function readLength(name: string, value: string, draft: Draft): void {
  if (name.toLowerCase() !== 'content-length') return
  if (draft.length >= 0 || !LENGTH.test(value)) throw new ResponseFault('Content-Length')
  draft.length = Number(value)
}

function readCoding(name: string, value: string, draft: Draft): void {
  if (name.toLowerCase() !== 'transfer-encoding') return
  if (draft.chunked || value.toLowerCase() !== 'chunked') throw new ResponseFault('Transfer-Encoding')
  draft.chunked = true
}

function readConnection(name: string, value: string, draft: Draft): void {
  const lower = name.toLowerCase()
  if (lower === 'keep-alive') {
    const seconds = /\btimeout=(\d{1,6})\b/i.exec(value)?.[1]
    if (seconds !== undefined) draft.keepAliveMs = Number(seconds) * 1000
  } else if (lower === 'connection' && /\bclose\b/i.test(value)) draft.persistent = false
}
