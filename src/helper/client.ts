import * as oauth from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import { EgressError, type Egress } from '../issuer/egress.ts'
import { isSafeUrl, type Issuer } from '../issuer/issuer.ts'
import type { AcceptedIssuer } from '../token/issuers.ts'

export type ClientAuthentication = 'client_secret_basic' | 'client_secret_post' | 'none'

/** One OAuth client whose grants the helper spends. */
export interface HelperClientOptions {
  /** Name in configuration, logs and metrics. */
  readonly name: string
  readonly clientId: string
  /** Reads the secret when it is needed, so that a rotated file is noticed; absent for a public client. */
  readonly readSecret: (() => string) | undefined
  readonly authentication: ClientAuthentication
  readonly issuer: Issuer
  /** For the validation of what the issuer returns. */
  readonly accepted: AcceptedIssuer
  /** Overrides the endpoint of the metadata. */
  readonly tokenEndpoint: string | undefined
  readonly insecureHttp: boolean
  readonly egress: Egress
  /** For one request to the token endpoint, in milliseconds. */
  readonly timeoutMs: number
}

export interface RefreshParameters {
  readonly refreshToken: string
  readonly scope: string | undefined
  readonly resources: readonly string[]
}

/**
 * Spends a refresh token at the token endpoint: one request, never repeated.
 *
 * @returns the token response, checked for form (RFC 6749 §5.1) but not for signatures
 * @throws GrantError `refused_by_issuer` with the issuer's own answer, `client_refused_by_issuer`, `issuer_unreachable`
 * (nothing was sent), `outcome_unknown` and `issuer_timeout` (the token may be spent), `issuer_error`,
 * `token_validation_failed`
 * @see RFC 6749 §6
 */
export async function requestRefresh(
  options: HelperClientOptions,
  parameters: RefreshParameters,
): Promise<oauth.TokenEndpointResponse> {
  const server = await describeServer(options)
  const client: oauth.Client = { client_id: options.clientId }
  const additional = new URLSearchParams(
    parameters.resources.map((resource): [string, string] => ['resource', resource]),
  )
  if (parameters.scope !== undefined) additional.set('scope', parameters.scope)
  let response: Response
  try {
    response = await oauth.refreshTokenGrantRequest(server, client, authenticate(options), parameters.refreshToken, {
      additionalParameters: additional,
      [oauth.customFetch]: (url, init) => send(options, url, init),
      // The library allows https alone; describeServer() has checked what else the operator allows.
      [oauth.allowInsecureRequests]: true,
    })
  } catch (error) {
    throw toSendError(error)
  }
  if (response.status >= 500) throw issuerError(response.status)
  try {
    return await oauth.processRefreshTokenResponse(server, client, response)
  } catch (error) {
    throw await toAnswerError(error, response)
  }
}

async function describeServer(options: HelperClientOptions): Promise<oauth.AuthorizationServer> {
  const { issuer, tokenEndpoint, accepted, insecureHttp } = options
  const algorithms = [...accepted.expectation.algorithms]
  const endpoint = tokenEndpoint ?? (await readTokenEndpoint(issuer))
  if (!isSafeUrl(endpoint, insecureHttp)) {
    throw unreachable('the token endpoint of the metadata is not https')
  }
  return { issuer: issuer.issuer, token_endpoint: endpoint, id_token_signing_alg_values_supported: algorithms }
}

async function readTokenEndpoint(issuer: Issuer): Promise<string> {
  const metadata = await issuer.metadata().catch((error: unknown) => {
    throw unreachable(error instanceof EgressError ? error.code : 'no usable metadata')
  })
  if (metadata.token_endpoint === undefined) throw unreachable('the metadata has no token_endpoint')
  return metadata.token_endpoint
}

function authenticate({ authentication, readSecret }: HelperClientOptions): oauth.ClientAuth {
  if (authentication === 'none' || readSecret === undefined) return oauth.None()
  const secret = readSecret()
  return authentication === 'client_secret_post' ? oauth.ClientSecretPost(secret) : oauth.ClientSecretBasic(secret)
}

async function send(
  { egress, timeoutMs }: HelperClientOptions,
  url: string,
  init: oauth.CustomFetchOptions<'POST', URLSearchParams>,
): Promise<Response> {
  const { status, headers, body } = await egress.send(url, {
    method: 'POST',
    headers: init.headers,
    body: init.body.toString(),
    timeoutMs,
  })
  return new Response(body === '' ? null : body, { status, headers })
}

function unreachable(reason: string): GrantError {
  return new GrantError('issuer_unreachable', {
    status: 502,
    error: 'temporarily_unavailable',
    description: 'The identity provider cannot be reached; the grant was not spent.',
    detail: { reason },
  })
}

function issuerError(status: number): GrantError {
  return new GrantError('issuer_error', {
    status: 502,
    error: 'temporarily_unavailable',
    description: 'The identity provider failed; whether the grant was spent is not known.',
    detail: { issuer_status: status },
  })
}

function toSendError(error: unknown): unknown {
  if (!(error instanceof EgressError)) return error
  if (error.unsent) return unreachable(error.code)
  const timeout = error.code === 'timeout'
  return new GrantError(timeout ? 'issuer_timeout' : 'outcome_unknown', {
    status: timeout ? 504 : 502,
    error: 'temporarily_unavailable',
    description: 'The identity provider did not answer; the grant may be spent.',
    detail: { reason: error.code },
  })
}

async function toAnswerError(error: unknown, response: Response): Promise<unknown> {
  if (error instanceof oauth.WWWAuthenticateChallengeError) return clientRefused()
  if (error instanceof oauth.ResponseBodyError) {
    return error.error === 'invalid_client' ? clientRefused() : passThrough(error, response)
  }
  if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
    await response.body?.cancel().catch(() => undefined)
    return validationFailed(error.code ?? 'form')
  }
  return error
}

/** The credentials at fault are this server's, so the caller must not take the refusal for its own. */
function clientRefused(): GrantError {
  return new GrantError('client_refused_by_issuer', {
    status: 502,
    error: 'server_error',
    description: 'The identity provider refused the client credentials of this server.',
  })
}

/** The issuer's refusal as it is, in the form of RFC 6749 §5.2 whatever else the issuer put around it. */
function passThrough({ error, status, cause }: oauth.ResponseBodyError, response: Response): GrantError {
  const { error: _error, error_description: description, ...members } = cause
  const retryAfter = response.headers.get('retry-after')
  return new GrantError('refused_by_issuer', {
    status,
    error: toLegalText(error),
    description: typeof description === 'string' ? toLegalText(description) : undefined,
    members,
    headers: retryAfter === null ? undefined : { 'retry-after': toLegalText(retryAfter) },
    detail: { error: toLegalText(error), issuer_status: status },
  })
}

/** Nothing of a response that fails validation is handed out. `check` says which check failed. */
export function validationFailed(check: string): GrantError {
  return new GrantError('token_validation_failed', {
    status: 502,
    error: 'server_error',
    description: 'The tokens that the identity provider returned did not pass validation.',
    detail: { check },
  })
}

/** The characters RFC 6749 §5.2 allows in `error` and `error_description`; some providers send line breaks. */
function toLegalText(text: string): string {
  return text
    .replace(/\s+/g, ' ')
    .replace(/["\\]/g, "'")
    .replace(/[^\x20-\x7e]/g, '?')
}
