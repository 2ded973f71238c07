const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** No claim is deeper. */
const MAX_DEPTH = 20

/**
 * Reads a JSON object strictly: UTF-8 without errors, no member twice (RFC 7515 §4 and RFC 7519 §4 leave it to the parser
 * which of the two counts, so two parsers see two tokens), and not nested deeper than 20.
 *
 * @returns the object, or what it is instead
 */
export function readObject(bytes: Uint8Array): Record<string, unknown> | string {
  let text: string
  let value: unknown
  try {
    text = utf8.decode(bytes)
    value = JSON.parse(text)
  } catch {
    // The parser's message would quote the token.
    return 'is not JSON'
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'is not a JSON object'
  return findFault(text) ?? (value as Record<string, unknown>)
}

/** One match per string, bracket or comma; what is between them does not matter, for the text is known to be JSON. */
const PIECES = /"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g

function findFault(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = []
  for (const [piece, colon] of text.matchAll(PIECES)) {
    if (piece === '{' || piece === '[') {
      if (open.length === MAX_DEPTH) return 'is nested too deeply'
      open.push(piece === '{' ? new Set() : undefined)
    } else if (piece === '}' || piece === ']') open.pop()
    else if (colon !== undefined) {
      const names = open.at(-1)
      const name = JSON.parse(piece.slice(0, piece.length - colon.length)) as string
      if (names?.has(name) === true) return 'has a member twice'
      names?.add(name)
    }
  }
  return undefined
}
