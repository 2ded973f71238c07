import { refusal } from '../errors.ts'
import { findField, type FieldList } from './headers.ts'

/** Reads the one access token of a request; see {@link createTokenReader}. */
export type TokenReader = (fields: FieldList) => string | undefined

/**
 * Creates the reader for the header field that holds access tokens: `authorization`, or another one in which the token
 * stands by itself.
 *
 * @returns a reader that throws Refusal `credentials_ambiguous` for more than one field, `credentials_malformed` for a value
 * that is not one token
 */
export function createTokenReader(header: string): TokenReader {
  if (header === 'authorization') return readBearerToken
  return (fields) => {
    const { count, value } = findField(fields, header)
    if (count > 1) throw refusal('credentials_ambiguous', { count })
    if (value !== undefined && (value === '' || /[\s,]/.test(value))) throw refusal('credentials_malformed')
    return value
  }
}

/**
 * Reads the one bearer token of a request: from the `Authorization` header field and nowhere else.
 *
 * @returns the token text, not yet looked at, or `undefined` when there is no `Authorization` or it is of another scheme
 * (RFC 6750 §3.1 treats an unsupported scheme as no credentials)
 * @throws Refusal `credentials_ambiguous` for more than one `Authorization`; `credentials_malformed` for `Bearer` without
 * exactly one token
 */
export function readBearerToken(fields: FieldList): string | undefined {
  const { count, value } = findField(fields, 'authorization')
  if (count > 1) throw refusal('credentials_ambiguous', { count })
  if (value === undefined || !isBearer(value)) return undefined
  const token = value.slice(7).trim()
  if (token === '' || /[\s,]/.test(token)) throw refusal('credentials_malformed')
  return token
}

/** The scheme is compared without case (RFC 9110 §11.1) and must be a word of its own. */
function isBearer(value: string): boolean {
  if (value.slice(0, 6).toLowerCase() !== 'bearer') return false
  return value.length === 6 || value[6] === ' ' || value[6] === '\t'
}
