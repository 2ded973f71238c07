/**
 * The small vocabulary that schema.ts is written in: each function makes one kind of setting, together with what the
 * reference page and the JSON Schema say about it.
 */
import * as v from 'valibot'

/** What is written about one setting. */
export interface FieldDoc {
  /** One or two sentences: what it is and what changing it does. */
  readonly text: string
  /** The kind of value with its bounds, for people. */
  readonly kind: string
  /** The kind of value for editors: a fragment of JSON Schema. */
  readonly json: Readonly<Record<string, unknown>>
}

/** A value that cannot be used; the message completes the sentence that begins with the path of the setting. */
class FieldFault extends Error {}

type Parse<T> = (value: unknown) => T

/** A setting with a parser of its own. The parser throws FieldFault. */
function field<T>(doc: FieldDoc, parse: Parse<T>) {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value)
      } catch (error) {
        if (!(error instanceof FieldFault)) throw error
        addIssue({ message: error.message })
        return NEVER
      }
    }),
    v.metadata({ doc }),
  )
}

function readString(value: unknown, what: string): string {
  if (typeof value === 'number' || typeof value === 'boolean')
    throw new FieldFault(`must be ${what}: put it in quotes.`)
  if (typeof value !== 'string') throw new FieldFault(`must be ${what}.`)
  if (value === '') throw new FieldFault('must not be empty.')
  return value
}

/** Free text of 1 to `max` characters. */
export function text(description: string, max = 2048) {
  const json = { type: 'string', minLength: 1, maxLength: max }
  return field({ text: description, kind: 'text', json }, (value) => {
    const string = readString(value, 'text')
    if (string !== string.trim()) throw new FieldFault('must not begin or end with a space.')
    if (string.length > max) throw new FieldFault(`must not be longer than ${max} characters.`)
    return string
  })
}

/** Text of a given shape. `what` describes it, such as "a lower-case name". */
export function pattern(description: string, what: string, shape: RegExp) {
  const json = { type: 'string', pattern: shape.source }
  return field({ text: description, kind: what, json }, (value) => {
    const string = readString(value, what)
    if (!shape.test(string)) throw new FieldFault(`must be ${what}.`)
    return string
  })
}

/** `true` or `false`. */
export function flag(description: string) {
  return field({ text: description, kind: 'true or false', json: { type: 'boolean' } }, (value) => {
    if (typeof value !== 'boolean') throw new FieldFault('must be true or false.')
    return value
  })
}

/** A whole number between two bounds, both included. */
export function count(description: string, min: number, max: number) {
  const json = { type: 'integer', minimum: min, maximum: max }
  return field({ text: description, kind: `${min} to ${max}`, json }, (value) => {
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
      throw new FieldFault(`must be a whole number from ${min} to ${max}.`)
    }
    return value as number
  })
}

/** One of a few words. `explain` may say more about a word that is not among them. */
export function oneOf<const T extends string>(
  description: string,
  words: readonly T[],
  explain?: (word: string) => string,
) {
  return field({ text: description, kind: words.join(', '), json: { enum: words } }, (value) => {
    if ((words as readonly unknown[]).includes(value)) return value as T
    const more = typeof value === 'string' ? explain?.(value) : undefined
    throw new FieldFault(more ?? `must be one of ${words.join(', ')}.`)
  })
}

const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
const BYTES: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2 }

function readQuantity(value: unknown, units: Readonly<Record<string, number>>, example: string): number {
  if (value === 0) return 0
  const match = typeof value === 'string' ? /^(\d{1,9})([A-Za-z]+)$/.exec(value) : null
  const unit = units[match?.[2] ?? '']
  if (match === null || unit === undefined) {
    throw new FieldFault(`must be a number with a unit (${Object.keys(units).join(', ')}), such as ${example}.`)
  }
  return Number(match[1]) * unit
}

function quantity(
  description: string,
  name: string,
  units: Readonly<Record<string, number>>,
  [min, max]: [string, string],
) {
  const json = { type: ['string', 'integer'], pattern: `^\\d{1,9}(${Object.keys(units).join('|')})$`, maximum: 0 }
  const [least, most] = [readQuantity(min, units, min), readQuantity(max, units, max)]
  return field({ text: description, kind: `${name}, ${min} to ${max}`, json }, (value) => {
    const number = readQuantity(value, units, max)
    if (number < least || number > most) throw new FieldFault(`must be between ${min} and ${max}.`)
    return number
  })
}

/** A time such as `250ms`, `30s`, `15m` or `24h`; becomes milliseconds. Bounds are written the same way. */
export function duration(description: string, min: string, max: string) {
  return quantity(description, 'duration', MILLISECONDS, [min, max])
}

/** A size such as `512B`, `16KiB` or `1MiB`; becomes bytes. Bounds are written the same way. */
export function size(description: string, min: string, max: string) {
  return quantity(description, 'size', BYTES, [min, max])
}

export interface Address {
  readonly host: string
  readonly port: number
}

/** An address to listen on: `HOST:PORT`, `[::1]:PORT`, or `:PORT` for all addresses. */
export function address(description: string) {
  const json = { type: 'string', pattern: '^(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]*):\\d{1,5}$' }
  return field({ text: description, kind: 'HOST:PORT', json }, readAddress)
}

function readAddress(value: unknown): Address {
  const match = typeof value === 'string' ? /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})$/.exec(value) : null
  const port = Number(match?.[3])
  if (match === null || port > 65535) throw new FieldFault('must be HOST:PORT, such as 0.0.0.0:8080.')
  return { host: match[1] ?? (match[2] === '' ? '0.0.0.0' : (match[2] as string)), port }
}

/** An address to listen on, or `unix:` and the absolute path of a socket. */
export function addressOrSocket(description: string) {
  const json = { type: 'string', pattern: '^(unix:/.+|(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]*):\\d{1,5})$' }
  return field({ text: description, kind: 'HOST:PORT or unix:/PATH', json }, (value) =>
    typeof value === 'string' && /^unix:/i.test(value)
      ? { path: readSocket(value).slice('unix:'.length) }
      : readAddress(value),
  )
}

/** An absolute http or https URL, kept as it was written. */
export function url(description: string) {
  const json = { type: 'string', pattern: '^https?://' }
  return field({ text: description, kind: 'URL', json }, (value) =>
    readUrl(readString(value, 'a URL'), ['http', 'https']),
  )
}

function readUrl(string: string, schemes: readonly string[]): string {
  if (/^https?:(?!\/\/[^/])/i.test(string)) throw new FieldFault('must have "//" and a host after its scheme.')
  if (/[\s\\\x00-\x1f]/.test(string)) throw new FieldFault('must not hold spaces, backslashes or control characters.')
  const parsed = URL.canParse(string) ? new URL(string) : undefined
  if (parsed === undefined || !schemes.includes(parsed.protocol.slice(0, -1))) {
    throw new FieldFault(`must be an ${schemes.join(' or ')} URL.`)
  }
  if (parsed.username !== '' || parsed.password !== '') throw new FieldFault('must not hold a user name or password.')
  if (string.includes('#')) throw new FieldFault('must not hold a fragment.')
  return string
}

/** Where the backend is: an http, https, h2c or h2 URL, or `unix:` and the absolute path of a socket. */
export function upstreamUrl(description: string) {
  const plain = { type: 'string', pattern: '^((http|https|h2c|h2)://|unix:/)' }
  return field({ text: description, kind: 'URL', json: plain }, (value) => {
    const string = readString(value, 'a URL')
    if (/^unix:/i.test(string)) return readSocket(string)
    return readUrl(string, ['http', 'https', 'h2c', 'h2'])
  })
}

/** Longest path that the system has room for. */
const MAX_SOCKET_BYTES = 107

function readSocket(string: string): string {
  const path = string.slice('unix:'.length)
  if (!string.startsWith('unix:') || !/^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._@+,:=~-]+)+$/.test(path)) {
    throw new FieldFault('must be "unix:" and the absolute path of a socket, such as unix:/run/api.sock.')
  }
  if (path.length > MAX_SOCKET_BYTES) {
    throw new FieldFault(`names a socket with more than ${MAX_SOCKET_BYTES} characters, which the system cannot open.`)
  }
  return string
}

/** Where a secret is; never the secret itself. */
export type SecretReference = { readonly file: string } | { readonly env: string }

/** A reference to a secret: `{file: PATH}` or `{env: NAME}`. */
export function secret(description: string) {
  const reference = (name: string) => ({
    type: 'object',
    properties: { [name]: { type: 'string', minLength: 1 } },
    required: [name],
    additionalProperties: false,
  })
  const json = { oneOf: [reference('file'), reference('env')] }
  return field({ text: description, kind: '{file: PATH} or {env: NAME}', json }, (value): SecretReference => {
    if (typeof value === 'string') {
      throw new FieldFault('must not be written here: say where it is, as {file: PATH} or {env: NAME}.')
    }
    const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
    const [name, place] = entries[0] ?? []
    if (entries.length !== 1 || typeof place !== 'string' || place === '' || (name !== 'file' && name !== 'env')) {
      throw new FieldFault('must be {file: PATH} or {env: NAME}.')
    }
    return name === 'file' ? { file: place } : { env: place }
  })
}

/** A path to a claim: a name, an RFC 6901 pointer, or a list of names. */
export function claimPath(description: string) {
  const strings = { type: 'array', items: { type: 'string', minLength: 1 }, minItems: 1 }
  const json = { oneOf: [{ type: 'string', minLength: 1 }, strings] }
  const kind = 'the name of a claim, a JSON pointer beginning with "/", or a list of names'
  return field({ text: description, kind, json }, (value): readonly string[] => {
    if (Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === 'string' && name !== '')) {
      return value as string[]
    }
    if (typeof value !== 'string' || value === '') throw new FieldFault(`must be ${kind}.`)
    if (!value.startsWith('/')) return [value]
    if (/~(?![01])/.test(value)) throw new FieldFault('must write "~" as "~0" in a JSON pointer.')
    const names = value.slice(1).split('/')
    return names.map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'))
  })
}

/** A text, a number, or true or false, to compare a claim with. */
export function scalar(description: string) {
  const json = { type: ['string', 'number', 'boolean'] }
  return field({ text: description, kind: 'text, number, true or false', json }, (value) => {
    if (typeof value === 'number' && (!Number.isFinite(value) || Math.abs(value) > Number.MAX_SAFE_INTEGER)) {
      throw new FieldFault(
        'must be a number that JSON can hold exactly; write a larger one as text, if the claim is text.',
      )
    }
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
    throw new FieldFault('must be text, a number, true or false.')
  })
}

/** A group of settings; keys that are not among them are errors. */
export function section<const T extends v.ObjectEntries>(description: string, entries: T) {
  return v.pipe(v.strictObject(entries), v.metadata({ section: description }))
}

/** A list of settings of one kind. */
export function list<T extends v.GenericSchema>(description: string, item: T, min = 0, max = 10_000) {
  return v.pipe(
    v.array(item),
    v.minLength(min, `must have at least ${min} ${min === 1 ? 'entry' : 'entries'}.`),
    v.maxLength(max, `must not have more than ${max} entries.`),
    v.metadata({ section: description }),
  )
}

/** What a token must be meant for. */
export interface Audience {
  readonly claim: 'aud' | 'client_id' | 'azp'
  readonly values: readonly string[]
}

/** One text, a list of texts, or `{claim, values}`. */
export function audience(description: string) {
  const strings = { type: 'array', items: { type: 'string', minLength: 1 }, minItems: 1 }
  const one = { type: 'string', minLength: 1 }
  const named = {
    type: 'object',
    properties: { claim: { enum: AUDIENCE_CLAIMS }, values: { oneOf: [one, strings] } },
    required: ['claim', 'values'],
    additionalProperties: false,
  }
  const kind = 'text, a list of texts, or {claim: aud | client_id | azp, values: …}'
  return field({ text: description, kind, json: { oneOf: [one, strings, named] } }, (value): Audience => {
    const isNamed = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (!isNamed) return { claim: 'aud', values: readTexts(value) }
    const { claim, values, ...others } = value as Record<string, unknown>
    if (!AUDIENCE_CLAIMS.includes(claim as Audience['claim']) || Object.keys(others).length > 0) {
      throw new FieldFault(`must be ${kind}.`)
    }
    return { claim: claim as Audience['claim'], values: readTexts(values) }
  })
}

const AUDIENCE_CLAIMS = ['aud', 'client_id', 'azp'] as const

function readTexts(value: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (list.some((one) => typeof one === 'number' || typeof one === 'boolean')) {
    throw new FieldFault('must be text: put it in quotes.')
  }
  if (list.some((one) => typeof one === 'string' && one !== one.trim())) {
    throw new FieldFault('must not begin or end with a space.')
  }
  if (list.length === 0 || !list.every((one) => typeof one === 'string' && one !== '')) {
    throw new FieldFault('must be text or a list of texts, none of them empty.')
  }
  return list as string[]
}

/** The end of the year 9999, in seconds since 1970. */
const LAST_MOMENT = 253_402_300_799

/** A moment, in RFC 3339 or as seconds since 1970; becomes seconds. */
export function instant(description: string) {
  const kind = 'a moment such as 2026-01-31T12:00:00Z, or seconds since 1970'
  return field({ text: description, kind, json: { type: ['string', 'integer'] } }, (value): number => {
    const isText =
      typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(value)
    const seconds = isText ? Math.floor(Date.parse(value) / 1000) : value
    if (typeof seconds !== 'number' || !Number.isSafeInteger(seconds) || seconds < 0) {
      throw new FieldFault(`must be ${kind}.`)
    }
    if (seconds > LAST_MOMENT) throw new FieldFault('is later than the year 9999: write seconds, not milliseconds.')
    return seconds
  })
}
