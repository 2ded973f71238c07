/** A message that is no HTTP/1.1, or can be read in more than one way. The text is for the log and quotes nothing of it. */
export class MessageFault extends Error {
  override readonly name = 'MessageFault'
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/**
 * Reads one field line (RFC 9112 §5) and adds name and value to a flat list.
 *
 * @param text - one character per byte
 * @param start - where the line begins
 * @returns where the next one begins
 * @throws MessageFault for a line without name or colon, one that is folded or does not end in CRLF, an illegal character
 */
export function readFieldLine(text: string, start: number, fields: string[]): number {
  const end = text.indexOf('\r\n', start)
  const colon = text.indexOf(':', start)
  if (end === -1 || colon === -1 || colon > end) throw new MessageFault('header line')
  const name = text.slice(start, colon)
  const value = readValue(text, colon + 1, end)
  if (!TOKEN.test(name) || !VALUE.test(value)) throw new MessageFault('header field')
  fields.push(name, value)
  return end + 2
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

const LENGTH = /^\d{1,15}$/

/**
 * The number in a `Content-Length`. Longer ones than 15 digits are more than any peer can count: 2^64 - 1 is a length to one
 * parser, and -1 to another.
 *
 * @returns bytes, or `undefined` when it is none
 */
export function readContentLength(value: string): number | undefined {
  return LENGTH.test(value) ? Number(value) : undefined
}
