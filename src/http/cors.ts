import { findField, type FieldList } from './headers.ts'

/**
 * Whether a request is the question of a browser, ahead of the request that a page wants to make (Fetch §3.2.2): it cannot
 * carry a token, and asks for nothing but header fields.
 */
export function isPreflight(method: string, fields: FieldList): boolean {
  if (method !== 'OPTIONS') return false
  return findField(fields, 'origin').count === 1 && findField(fields, 'access-control-request-method').count === 1
}

/** The fields by which a page may read a refusal, for the fields of its request. */
export type CorsFields = (fields: FieldList) => readonly string[]

const EXPOSED = 'WWW-Authenticate, Retry-After'

/**
 * Creates the fields for refusals. Only pages of the given origins may read them; whatever the backend answers has its own.
 *
 * @param origins - exactly as browsers send them, such as `https://app.example.com`
 */
export function createCorsFields(origins: readonly string[]): CorsFields {
  const allowed = new Set(origins)
  if (allowed.size === 0) return () => []
  return (fields) => {
    const { count, value } = findField(fields, 'origin')
    if (count !== 1 || value === undefined || !allowed.has(value)) return ['vary', 'Origin']
    return [
      ...['access-control-allow-origin', value, 'access-control-allow-credentials', 'true'],
      ...['access-control-expose-headers', EXPOSED, 'vary', 'Origin'],
    ]
  }
}
