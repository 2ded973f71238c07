import { canonicalName, findField, type FieldList } from './headers.ts'

/** Fields by which some frameworks take a request for one of another method. */
export const METHOD_OVERRIDES: readonly string[] = ['x-http-method-override', 'x-http-method', 'x-method-override']

/**
 * Whether a request is the question of a browser, ahead of the request that a page wants to make (Fetch §3.2.2): it cannot
 * carry a token, and asks for nothing but header fields. One with a body, or one that some backend may read as another
 * method, is no question.
 */
export function isPreflight(method: string, fields: FieldList): boolean {
  if (method !== 'OPTIONS') return false
  if (findField(fields, 'origin').count !== 1 || findField(fields, 'access-control-request-method').count !== 1)
    return false
  if (findField(fields, 'transfer-encoding').count > 0) return false
  if ((findField(fields, 'content-length').value ?? '0') !== '0') return false
  return !fields.some((name, i) => i % 2 === 0 && METHOD_OVERRIDES.includes(canonicalName(name)))
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
