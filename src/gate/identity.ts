import { refusal } from '../errors.ts'
import { readPath } from '../token/claims.ts'
import type { VerifiedToken } from '../token/verifier.ts'

export type IdentityFormat = 'string' | 'csv' | 'json' | 'base64url-json'

/** One identity header field and where its value comes from. */
export interface IdentityHeader {
  /** Field name in lower case. */
  readonly name: string
  /** Path of member names from the claims set inwards. */
  readonly path: readonly string[]
  readonly format: IdentityFormat
  /** For a claim that is absent or cannot be written in the format: no field, an empty one, or a refused request. */
  readonly onMissing: 'omit' | 'empty' | 'reject'
}

export interface IdentityOptions {
  /** Reserved prefix, in lower case, ending in `-`. */
  readonly prefix: string
  /** Whether to set {@link defaultNames}. */
  readonly defaults: boolean
  /** Further fields, or other sources for the default ones. */
  readonly headers: readonly IdentityHeader[]
  /** Longest value in bytes. */
  readonly maxHeaderBytes: number
  /** All names and values together, in bytes. */
  readonly maxTotalBytes: number
}

/** Writes the identity header fields for a token: flat list of names and values. */
export type IdentityEncoder = (token: VerifiedToken) => readonly string[]

type Source = (token: VerifiedToken) => unknown

/** What is set for every token without configuration. */
const DEFAULTS: Readonly<Record<string, { readonly source: Source; readonly format: IdentityFormat }>> = {
  subject: { source: ({ claims }) => claims['sub'], format: 'string' },
  issuer: { source: ({ claims }) => claims['iss'], format: 'string' },
  'client-id': { source: ({ clientId }) => clientId, format: 'string' },
  scope: { source: ({ scopes }) => (scopes.length === 0 ? undefined : scopes.join(' ')), format: 'string' },
  'expires-at': { source: ({ claims }) => claims['exp'], format: 'string' },
  roles: { source: ({ roles }) => roles, format: 'csv' },
  permissions: { source: ({ permissions }) => permissions, format: 'csv' },
}

/** The names of the fields set by default, with the given prefix. */
export function defaultNames(prefix: string): string[] {
  return Object.keys(DEFAULTS).map((name) => prefix + name)
}

/**
 * Compiles the identity headers. The result is kept on the token, so a remembered token is written once.
 *
 * Values are ASCII: a `string` that holds anything but printable ASCII is percent-encoded as UTF-8, and its name listed in
 * `{prefix}encoded`; elements of `csv` are always percent-encoded where they hold `%`, `,` or anything but printable
 * ASCII, so that an element cannot become two; `json` escapes with `\u`; `base64url-json` needs no escape.
 *
 * @returns an encoder that throws Refusal `claim_missing` for `onMissing: reject`, `identity_too_large` past a limit
 */
export function createIdentityEncoder(options: IdentityOptions): IdentityEncoder {
  const configured = new Map(options.headers.map((header) => [header.name, header]))
  const headers: Writer[] = options.headers.map(({ name, path, format, onMissing }) => ({
    name,
    source: ({ claims }) => readPath(claims, path),
    format,
    onMissing,
  }))
  if (options.defaults) {
    for (const [name, { source, format }] of Object.entries(DEFAULTS)) {
      const full = options.prefix + name
      if (!configured.has(full)) headers.push({ name: full, source, format, onMissing: 'omit' })
    }
  }
  return (token) => (token.identity ??= write(headers, token, options))
}

interface Writer {
  readonly name: string
  readonly source: Source
  readonly format: IdentityFormat
  readonly onMissing: IdentityHeader['onMissing']
}

function write(headers: readonly Writer[], token: VerifiedToken, options: IdentityOptions): readonly string[] {
  const fields: string[] = []
  const encoded: string[] = []
  for (const { name, source, format, onMissing } of headers) {
    const value = source(token)
    let text = toText(value, format)
    if (text === undefined) {
      if (onMissing === 'reject') throw refusal('claim_missing', { header: name })
      if (onMissing === 'omit') continue
      text = ''
    }
    if (format === 'string' && !isPlain(text)) {
      text = encodeURIComponent(text.toWellFormed())
      encoded.push(name)
    }
    if (text.length > options.maxHeaderBytes) throw refusal('identity_too_large', { header: name, bytes: text.length })
    fields.push(name, text)
  }
  if (encoded.length > 0) fields.push(`${options.prefix}encoded`, encoded.join(','))
  const total = fields.reduce((sum, text) => sum + text.length, 0)
  if (total > options.maxTotalBytes) throw refusal('identity_too_large', { bytes: total })
  return fields
}

/** Printable ASCII that a header field carries unchanged: no space at either end, where parsers trim it. */
function isPlain(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text) && text === text.trim()
}

/** A claim in the given format, or `undefined` when it is absent or the format cannot hold it. */
function toText(value: unknown, format: IdentityFormat): string | undefined {
  if (value === undefined || value === null) return undefined
  switch (format) {
    case 'string':
      return toScalarText(value)
    case 'csv':
      return toCsv(value)
    case 'json':
      return escapeNonAscii(JSON.stringify(value))
    case 'base64url-json':
      return Buffer.from(JSON.stringify(value)).toString('base64url')
  }
}

function toScalarText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

function toCsv(value: unknown): string | undefined {
  const elements: readonly unknown[] = Array.isArray(value) ? value : [value]
  const texts = elements.map(toScalarText)
  if (texts.length === 0 || texts.includes(undefined)) return undefined
  return texts.map((text) => escapeElement(text as string)).join(',')
}

/** Percent-encodes what would end the element, mislead a decoder, or be trimmed; leaves the rest readable. */
function escapeElement(text: string): string {
  if (/^[\x21-\x24\x26-\x2b\x2d-\x7e]+$/.test(text)) return text
  return text.toWellFormed().replace(/[^\x20-\x24\x26-\x2b\x2d-\x7e]+|^ +| +$/gu, (part) => encodeURIComponent(part))
}

function escapeNonAscii(json: string): string {
  return json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
