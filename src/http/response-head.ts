import type { Framing } from './body-reader.ts'
import { MessageFault, readContentLength, readFieldLine } from './field-line.ts'

/** The head of a response as received: status line and header fields (RFC 9112 §4 and §5). */
export interface ResponseHead {
  readonly status: number
  /** Flat list of names and values as received, one character per byte. */
  readonly fields: string[]
  /** How the end of the body is told (RFC 9112 §6.3), apart from what method and status say. */
  readonly framing: Framing
  /** For `length`: bytes of the body; otherwise -1. */
  readonly length: number
  /** Whether the connection may carry another request. */
  readonly persistent: boolean
  /** Milliseconds after which the server closes an idle connection, as it announced; `undefined` when it did not. */
  readonly keepAliveMs: number | undefined
  /** Whether the body may be silent for as long as nothing happens: a stream of events, or of gRPC. */
  readonly mayBeSilent: boolean
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/

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
 * @throws MessageFault for a line without name or colon, a folded line, an illegal character, more than one or a
 * malformed Content-Length, one beside Transfer-Encoding, or a Transfer-Encoding other than `chunked`
 */
export function readResponseHead(text: string): ResponseHead {
  const lineEnd = text.indexOf('\r\n')
  const match = STATUS_LINE.exec(text.slice(0, lineEnd))
  if (match === null) throw new MessageFault('status line')
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
  if (chunked && length >= 0) throw new MessageFault('Content-Length beside Transfer-Encoding')
  const framing = chunked ? 'chunked' : length >= 0 ? 'length' : 'close'
  return { status, fields, framing, length, persistent, keepAliveMs, mayBeSilent }
}

/** Reads one field; returns where the next begins. */
function readField(text: string, start: number, draft: Draft): number {
  const { fields } = draft
  const next = readFieldLine(text, start, fields)
  const name = fields[fields.length - 2] as string
  const value = fields[fields.length - 1] as string
  // By length first: only few names matter, and most fields are none of them.
  if (name.length === 14) readLength(name, value, draft)
  else if (name.length === 17) readCoding(name, value, draft)
  else if (name.length === 10) readConnection(name, value, draft)
  else if (name.length === 12 && allowsSilence(value) && name.toLowerCase() === 'content-type') draft.mayBeSilent = true
  return next
}

const SILENT_TYPE = /^(?:text\/event-stream|application\/grpc(?:[+-][\w.+-]*)?)(?![^\s;])/i

/**
 * Whether a response of this Content-Type may be silent for as long as it likes: server-sent events (HTML §9.2), and gRPC,
 * whose streams may wait for hours for the next message, and whose calls have deadlines of their own.
 */
export function allowsSilence(contentType: string): boolean {
  return SILENT_TYPE.test(contentType)
}

function readLength(name: string, value: string, draft: Draft): void {
  if (name.toLowerCase() !== 'content-length') return
  const length = readContentLength(value)
  if (draft.length >= 0 || length === undefined) throw new MessageFault('Content-Length')
  draft.length = length
}

function readCoding(name: string, value: string, draft: Draft): void {
  if (name.toLowerCase() !== 'transfer-encoding') return
  if (draft.chunked || value.toLowerCase() !== 'chunked') throw new MessageFault('Transfer-Encoding')
  draft.chunked = true
}

function readConnection(name: string, value: string, draft: Draft): void {
  const lower = name.toLowerCase()
  if (lower === 'keep-alive') {
    const seconds = /\btimeout=(\d{1,6})\b/i.exec(value)?.[1]
    if (seconds !== undefined) draft.keepAliveMs = Number(seconds) * 1000
  } else if (lower === 'connection' && /\bclose\b/i.test(value)) draft.persistent = false
}
