/** The kinds of settings that say what is asked of the claims of a token, or taken from them. */
import { field, FieldFault } from './fields.ts'

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
