/**
 * The error classes and the closed table of codes. One spelling of a code is used everywhere: in the response body, the
 * log line, the metric label and the documentation.
 *
 * Sources: RFC 6750 §3.1 (Bearer errors), RFC 9110 §15 (status codes), RFC 6749 §5.2 (token endpoint errors).
 */

interface CodeEntry {
  readonly status: number
  /** The OAuth `error` of the challenge (RFC 6750 §3.1); absent where no challenge may carry one. */
  readonly error?: 'invalid_request' | 'invalid_token' | 'insufficient_scope'
  /** Fixed text for the caller: says what is wrong with the request, never what was expected. */
  readonly description: string
  /** Seconds for `Retry-After`, on answers that a caller may repeat unchanged. */
  readonly retryAfterSeconds?: number
}

const invalidToken = (description: string): CodeEntry => ({ status: 401, error: 'invalid_token', description })

/** Why the gate refused a request: the caller's side. */
const REFUSALS = {
  credentials_missing: { status: 401, description: 'The request carries no access token.' },
  credentials_ambiguous: {
    status: 400,
    error: 'invalid_request',
    description: 'The request carries more than one set of credentials.',
  },
  credentials_malformed: {
    status: 400,
    error: 'invalid_request',
    description: 'The Authorization header field is not "Bearer" followed by one access token.',
  },
  token_too_large: invalidToken('The access token is larger than this server accepts.'),
  token_malformed: invalidToken('The access token is not a signed JWT in compact form.'),
  token_type_not_accepted: invalidToken('The token is not of an accepted type.'),
  critical_header_not_supported: invalidToken('The token requires a header extension that is not supported.'),
  algorithm_not_allowed: invalidToken('The token is signed with an algorithm that is not accepted.'),
  issuer_unknown: invalidToken('The token was issued by an authorization server that is not accepted.'),
  key_unknown: invalidToken('The token is signed with a key that the issuer does not publish.'),
  signature_invalid: invalidToken('The signature of the token is not valid.'),
  token_expired: invalidToken('The access token expired.'),
  token_not_yet_valid: invalidToken('The access token is not valid yet.'),
  token_from_the_future: invalidToken('The access token was issued in the future.'),
  token_too_old: invalidToken('The access token was issued too long ago.'),
  id_token_not_accepted: invalidToken(
    'The token is an ID token, not an access token: an API takes access tokens only.',
  ),
  audience_mismatch: invalidToken('The access token is not meant for this resource.'),
  claim_missing: invalidToken('The access token lacks a required claim.'),
  claim_not_accepted: invalidToken('A claim of the access token is not accepted.'),
  claim_invalid: invalidToken('A claim of the access token has a value of the wrong type.'),
  scope_insufficient: {
    status: 403,
    error: 'insufficient_scope',
    description: 'The access token lacks a scope that this request needs.',
  },
  claims_forbidden: { status: 403, description: 'The claims of the access token do not permit this request.' },
  identity_too_large: {
    status: 431,
    description: 'The claims of the access token do not fit into the header fields of one request.',
  },
  target_invalid: {
    status: 400,
    description: 'The request target is malformed or could be read in more than one way.',
  },
  header_invalid: { status: 400, description: 'The header of the request is malformed.' },
  header_too_large: { status: 431, description: 'The header of the request is larger than this server accepts.' },
  frame_invalid: { status: 400, description: 'The connection does not follow the rules of HTTP/2.' },
  host_invalid: { status: 400, description: 'The request needs exactly one valid Host header field.' },
  request_timeout: { status: 408, description: 'The request did not arrive in time.' },
  expectation_failed: { status: 417, description: 'The only supported expectation is 100-continue.' },
  method_not_supported: { status: 501, description: 'The request method is not supported.' },
  upgrade_not_supported: { status: 501, description: 'Switching protocols (WebSocket, HTTP/2) is not supported.' },
} as const satisfies Record<string, CodeEntry>

/** Why the gate could not decide: something it depends on. The caller should keep its token and try again. */
const UNAVAILABILITIES = {
  keys_unavailable: {
    status: 503,
    description: 'The keys of the issuer are not available at the moment.',
    retryAfterSeconds: 5,
  },
  overloaded: {
    status: 503,
    description: 'This server has more requests than it can serve at the moment.',
    retryAfterSeconds: 1,
  },
} as const satisfies Record<string, CodeEntry>

/** What went wrong between this server and the upstream. */
const UPSTREAM_FAILURES = {
  upstream_unreachable: { status: 502, description: 'The upstream refused the connection.' },
  upstream_reset: { status: 502, description: 'The upstream closed the connection before it answered.' },
  upstream_invalid_response: { status: 502, description: 'The upstream sent an invalid response.' },
  upstream_timeout: { status: 504, description: 'The upstream did not answer in time.' },
  /** Log and metric only: nobody is left to answer. */
  caller_gone: { status: 499, description: 'The caller closed the connection before the response was complete.' },
} as const satisfies Record<string, CodeEntry>

const INTERNAL = {
  internal_error: { status: 500, description: 'An unexpected error; the log has the details under the request id.' },
} as const satisfies Record<string, CodeEntry>

export type RefusalCode = keyof typeof REFUSALS
export type UnavailableCode = keyof typeof UNAVAILABILITIES
export type UpstreamCode = keyof typeof UPSTREAM_FAILURES
export type Code = RefusalCode | UnavailableCode | UpstreamCode | keyof typeof INTERNAL

/** Every code with its status and wording; the reference page and the tests walk this table. */
export const CODES: Readonly<Record<Code, CodeEntry>> = Object.freeze({
  ...REFUSALS,
  ...UNAVAILABILITIES,
  ...UPSTREAM_FAILURES,
  ...INTERNAL,
})

/**
 * Facts for the operator's log, never for the caller. Values that came out of an unverified token or request are
 * strings the caller chose: the log escapes and truncates them.
 */
export type Detail = Readonly<Record<string, string | number | readonly string[]>>

/** Creates the error without collecting a stack: refusals are expected traffic, and the stack is most of their cost. */
function withoutStack<T>(create: () => T): T {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return create()
  } finally {
    Error.stackTraceLimit = limit
  }
}

/** Base of the three errors that a door turns into a response by looking its code up in {@link CODES}. */
export abstract class CodedError extends Error {
  readonly code: Code
  readonly detail: Detail | undefined

  constructor(code: Code, detail?: Detail, options?: ErrorOptions) {
    super(CODES[code].description, options)
    this.name = new.target.name
    this.code = code
    this.detail = detail
  }
}

/** The gate's no: a fault of the request. Becomes a 4xx with a challenge. */
export class Refusal extends CodedError {
  declare readonly code: RefusalCode
}

/** The gate cannot tell: becomes a 503 with `Retry-After`, never a 401. */
export class Unavailable extends CodedError {
  declare readonly code: UnavailableCode
}

/** The upstream's fault: becomes a 502 or 504; `caller_gone` is logged only. */
export class UpstreamError extends CodedError {
  declare readonly code: UpstreamCode
}

/** Creates a {@link Refusal} without a stack. `detail` is for the log only. */
export function refusal(code: RefusalCode, detail?: Detail): Refusal {
  return withoutStack(() => new Refusal(code, detail))
}

/** Creates an {@link Unavailable} without a stack. `detail` is for the log only. */
export function unavailable(code: UnavailableCode, detail?: Detail): Unavailable {
  return withoutStack(() => new Unavailable(code, detail))
}

/** The codes of the token helper, as it answers, logs and counts them, each with its meaning. */
export const GRANT_CODES = Object.freeze({
  request_invalid: 'The token request is malformed; the description says how.',
  client_unknown: 'No client with this client_id is configured.',
  grant_not_supported: 'The grant type is not supported here.',
  grant_not_allowed: 'The grant is not configured for the client.',
  parameter_not_allowed: 'A redirect_uri, scope, audience or resource is not configured for the client.',
  caller_unauthenticated: 'The caller does not show that it is one of those configured.',
  caller_not_allowed: 'The caller may not use the client.',
  origin_refused: 'The request comes from a browser.',
  authorization_pending: 'The user of the device has not decided yet.',
  slow_down: 'The device code is polled too often.',
  refused_by_issuer: 'The issuer refused the grant; its own answer is passed on.',
  client_refused_by_issuer: 'The issuer refused the credentials of this server; the grant was not spent.',
  credentials_unavailable: 'The secret, key or certificate of the client cannot be read; the grant was not spent.',
  issuer_busy: 'The issuer asks to slow down; the grant was not spent.',
  issuer_unreachable: 'The issuer could not be asked; the grant was not spent.',
  issuer_timeout: 'The issuer did not answer in time; the grant may be spent.',
  issuer_error: 'The issuer answered with a server error; the grant may be spent.',
  outcome_unknown: 'The connection to the issuer broke, or the replica that was spending died; the grant may be spent.',
  keys_unavailable: 'The keys of the issuer are not available; the grant was not spent.',
  issuer_unavailable:
    'The issuer failed several times in a row and is left alone for a moment; the grant was not spent.',
  store_unavailable: 'The store that replicas share cannot be reached; the grant was not spent.',
  rate_limited: 'More token requests for the client than its limit allows; the grant was not spent.',
  refresh_token_not_sealed: 'The refresh token was not sealed here; it was not spent.',
  refresh_token_seal_invalid:
    'The sealed refresh token cannot be opened here, or is bound to another client or caller; it was not spent.',
  token_validation_failed: 'What the issuer returned did not pass validation; nothing of it was handed out.',
  tokens_not_validated:
    'The keys to validate what the issuer returned did not come in time; nothing of it was handed out, the grant is spent.',
  internal_error: 'An unexpected error; the log has the details.',
} as const)

export type GrantCode = keyof typeof GRANT_CODES

/** The helper's answer when no tokens can be handed out, in the form of RFC 6749 §5.2. */
export class GrantError extends Error {
  readonly code: GrantCode
  /** HTTP status of the answer. */
  readonly status: number
  /** The OAuth `error` member. */
  readonly error: string
  /** The OAuth `error_description` member, if any. */
  readonly description: string | undefined
  /** Further members of the identity provider's error body, passed through to the caller but never logged. */
  readonly members: Readonly<Record<string, unknown>> | undefined
  /** Header fields to pass through, such as `Retry-After`. */
  readonly headers: Readonly<Record<string, string>> | undefined
  /** Facts for the log. */
  readonly detail: Detail | undefined

  constructor(
    code: GrantCode,
    answer: {
      status: number
      error: string
      description?: string | undefined
      members?: Readonly<Record<string, unknown>> | undefined
      headers?: Readonly<Record<string, string>> | undefined
      detail?: Detail | undefined
    },
  ) {
    super(`${code}: ${answer.error}`)
    this.name = 'GrantError'
    this.code = code
    this.status = answer.status
    this.error = answer.error
    this.description = answer.description
    this.members = answer.members
    this.headers = answer.headers
    this.detail = answer.detail
  }
}

/** One thing wrong with the configuration. */
export interface Problem {
  /** The file, or the name of the environment variable, that holds the fault. */
  readonly source: string
  /** 1-based line in the file; absent for an environment variable or a missing file. */
  readonly line?: number | undefined
  /** Path of the setting, such as `issuers[0].audience`; empty for the file as a whole. */
  readonly path: string
  /** One sentence: what is wrong. Never holds the value of a secret. */
  readonly problem: string
  /** One sentence: the way out, if it is not obvious. */
  readonly hint?: string | undefined
}

/** The configuration cannot be used; carries every problem found. Exit code 78 (EX_CONFIG of sysexits). */
export class ConfigError extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(formatProblems(problems))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** A file with more problems than this has one problem: it is not a configuration. */
const MAX_SHOWN = 50

/** The first fifty problems as lines, and how many more there are. */
export function formatProblems(problems: readonly Problem[]): string {
  const rest = problems.length - MAX_SHOWN
  const lines = problems.slice(0, MAX_SHOWN).map(formatProblem)
  if (rest > 0)
    lines.push(`${problems[0]?.source}: ${rest} more ${rest === 1 ? 'problem is' : 'problems are'} not shown.`)
  return lines.join('\n')
}

/** One problem as one line: `file:line: path: problem (hint)`. */
export function formatProblem({ source, line, path, problem, hint }: Problem): string {
  const place = line === undefined ? source : `${source}:${line}`
  const what = path === '' ? problem : `${path}: ${problem}`
  return `${place}: ${what}${hint === undefined ? '' : ` ${hint}`}`
}
