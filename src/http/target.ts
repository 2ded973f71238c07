import { refusal } from '../errors.ts'

/** How strictly a request target is read. Each switch is off by default. */
export interface TargetOptions {
  /** Longest accepted target in bytes. */
  readonly maxBytes: number
  /** Accept `;` and `%3B` in paths, which some backends cut off as path parameters. */
  readonly allowSemicolon: boolean
  /** Accept `%2F` in paths, which some backends read as a separator. */
  readonly allowEncodedSlash: boolean
}

/**
 * One request target in every reading that a backend may make of it. The bytes forwarded are always `raw`; a request
 * whose readings fall under different rules is refused (see gate/rules.ts).
 */
export interface Target {
  /** As received, query included. */
  readonly raw: string
  /** The path, percent-decoded once. */
  readonly path: string
  /** The path without decoding, its escapes in upper case; equal to `path` when there is nothing to decode. */
  readonly encoded: string
  /** As the most lenient backend reads it: see {@link foldPath}. */
  readonly folded: string
}

// Visible ASCII but `#`, which no request target may hold: it is neither sent nor cut off in silence (RFC 9112 §3.2).
const LEGAL_TARGET = /^[\x21\x22\x24-\x7e]+$/
const DOT_SEGMENT = /\/\.{1,2}(?:\/|$)/
const ESCAPES = /%(?:[0-9a-fA-F]{2})?/g
// Decoded, these change what the path means: separators, dots, and the first half of a doubly encoded escape.
const ALWAYS_REFUSED = /%(?:2[eE]|5[cC]|25[0-9a-fA-F]{2}|[01][0-9a-fA-F]|7[fF])/
const PLAIN_PATH = /^[A-Za-z0-9\-_~!$&'()*+,=:@/.]*$/

/**
 * Reads a request target in origin form, and refuses what two parsers could read differently: nothing is normalised.
 *
 * @param raw - the target of the request line, as received (RFC 9112 §3.2)
 * @throws Refusal `target_invalid` for any other form, for dot segments, a backslash, control or non-ASCII bytes, a
 * fragment, a broken or doubly encoded escape, an encoded dot, and (unless allowed) `;` and an encoded slash
 */
export function readTarget(raw: string, options: TargetOptions): Target {
  if (raw.length > options.maxBytes) throw invalid('too long')
  if (raw.charCodeAt(0) !== 0x2f || raw.charCodeAt(1) === 0x2f) throw invalid('not in origin form')
  if (!LEGAL_TARGET.test(raw)) throw invalid('illegal character')
  const query = raw.indexOf('?')
  const path = query === -1 ? raw : raw.slice(0, query)
  if (path.includes('/.') && DOT_SEGMENT.test(path)) throw invalid('dot segment')
  if (PLAIN_PATH.test(path)) return { raw, path, encoded: path, folded: foldPath(path) }
  return readUnusualPath(raw, path, options)
}

function readUnusualPath(raw: string, path: string, options: TargetOptions): Target {
  if (path.includes('\\')) throw invalid('backslash')
  if (ALWAYS_REFUSED.test(path)) throw invalid('ambiguous escape')
  if (!options.allowSemicolon && /;|%3[bB]/.test(path)) throw invalid('semicolon')
  if (!options.allowEncodedSlash && /%2[fF]/.test(path)) throw invalid('encoded slash')
  const encoded = path.replace(ESCAPES, (escape) => {
    if (escape.length !== 3) throw invalid('broken escape')
    return escape.toUpperCase()
  })
  const decoded = decode(path)
  const folded = foldPath(decoded)
  if (DOT_SEGMENT.test(decoded) || DOT_SEGMENT.test(folded)) throw invalid('dot segment')
  return { raw, path: decoded, encoded, folded }
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw invalid('escape is not UTF-8')
  }
}

/**
 * A decoded path as the most lenient backend reads it: without regard to letter case or to the width and form of
 * characters (Unicode NFKC), without path parameters (`;…` in a segment), without what a second parse would take for a
 * query or fragment, repeated slashes as one, and no slash at the end.
 */
export function foldPath(path: string): string {
  // A dotless i is one in upper case alone.
  let folded = /[\x80-\uffff]/.test(path) ? path.normalize('NFKC').toUpperCase() : path
  if (/[?#;]|\/\//.test(folded)) {
    folded = folded
      .replace(/[?#].*$/s, '')
      .replace(/;[^/]*/g, '')
      .replace(/\/{2,}/g, '/')
  }
  if (folded.length > 1 && folded.endsWith('/')) folded = folded.slice(0, -1)
  return folded.toLowerCase()
}

function invalid(reason: string) {
  return refusal('target_invalid', { reason })
}
