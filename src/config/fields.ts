/**
 * The small vocabulary that schema.ts is written in: each function makes one kind of setting, together with what the
 * reference page and the JSON Schema say about it. Addresses and what is said about claims have files of their own.
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
export class FieldFault extends Error {}

type Parse<T> = (value: unknown) => T

/** A setting with a parser of its own. The parser throws FieldFault. */
export function field<T>(doc: FieldDoc, parse: Parse<T>) {
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

/** Text that is not empty. @throws FieldFault, which asks for quotes when a number or a boolean was written */
export function readString(value: unknown, what: string): string {
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
