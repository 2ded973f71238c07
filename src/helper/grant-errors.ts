import { GrantError, type Detail, type GrantCode } from '../errors.ts'

/** An answer of the form `invalid_request` that says what to change (RFC 6749 §5.2). */
export function invalidRequest(description: string, status = 400): GrantError {
  return new GrantError('request_invalid', { status, error: 'invalid_request', description })
}

/** A parameter has a value that the configuration of the client does not list. */
export function notAllowed(error: 'invalid_request' | 'invalid_scope' | 'invalid_target', description: string) {
  return new GrantError('parameter_not_allowed', { status: 400, error, description })
}

/** Nothing was sent: the issuer was not reached, or it is not known where to send. */
export function unreachable(reason: string): GrantError {
  return temporarily('issuer_unreachable', 502, 'The identity provider cannot be reached; the grant was not spent.', {
    reason,
  })
}

/** The issuer answered with something that is neither tokens nor a refusal in the form of RFC 6749 §5.2. */
export function issuerError(status: number): GrantError {
  const description = 'The identity provider failed; whether the grant was spent is not known.'
  return temporarily('issuer_error', 502, description, { issuer_status: status })
}

/** The issuer did not look at the request: it got too many. */
export function issuerBusy(retryAfter: string | undefined): GrantError {
  return new GrantError('issuer_busy', {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'The identity provider asks to slow down; the grant was not spent.',
    headers: { 'retry-after': retryAfter === undefined ? '5' : toLegalText(retryAfter) },
  })
}

/** The request was sent and its answer never came: it timed out, or the connection broke. */
export function unanswered(reason: string): GrantError {
  const [code, status] = reason === 'timeout' ? (['issuer_timeout', 504] as const) : (['outcome_unknown', 502] as const)
  return temporarily(code, status, 'The identity provider did not answer; the grant may be spent.', { reason })
}

/** Without keys the answer could not be validated, and by then the grant would be gone. */
export function keysUnavailable(): GrantError {
  return new GrantError('keys_unavailable', {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'The keys of the identity provider are not available; the grant was not spent.',
    headers: { 'retry-after': '5' },
  })
}

/** The secret, key or certificate of the client cannot be read. */
export function credentialsUnavailable(reason: string): GrantError {
  const description = 'The client credentials of this server cannot be used; the grant was not spent.'
  return temporarily('credentials_unavailable', 503, description, { reason })
}

/** The credentials at fault are this server's, so the caller must not take the refusal for its own. */
export function clientRefused(): GrantError {
  return new GrantError('client_refused_by_issuer', {
    status: 502,
    error: 'server_error',
    description: 'The identity provider refused the client credentials of this server; the grant was not spent.',
  })
}

/** Nothing of a response that fails validation is handed out. `check` says which check failed, `detail` what it saw. */
export function validationFailed(check: string, detail?: Detail): GrantError {
  return new GrantError('token_validation_failed', {
    status: 502,
    error: 'server_error',
    description: 'The tokens that the identity provider returned did not pass validation; the grant is spent.',
    detail: { check, ...detail },
  })
}

/** The answer could not be told to be genuine in time. */
export function notValidated(detail: Detail | undefined): GrantError {
  return new GrantError('tokens_not_validated', {
    status: 502,
    error: 'temporarily_unavailable',
    description: 'The keys to validate the tokens with are not available; nothing was handed out; the grant is spent.',
    detail,
  })
}

/** A fault of this server; the log has the details. */
export function internalError(): GrantError {
  return new GrantError('internal_error', { status: 500, error: 'server_error', description: 'An unexpected error.' })
}

function temporarily(code: GrantCode, status: number, description: string, detail: Record<string, string | number>) {
  return new GrantError(code, { status, error: 'temporarily_unavailable', description, detail })
}

/** No answer needs more of a text that somebody else wrote. */
const MAX_TEXT = 1000

/** The characters RFC 6749 §5.2 allows in `error` and `error_description`; some providers send line breaks. */
export function toLegalText(text: string): string {
  return text
    .slice(0, MAX_TEXT)
    .replace(/\s+/g, ' ')
    .replace(/["\\]/g, "'")
    .replace(/[^\x20-\x7e]/g, '?')
    .trim()
}
