import * as oauth from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import type { HelperClient } from './clients.ts'
import { askIssuer, isClientRefusal, type IssuerAnswer } from './endpoint.ts'
import { clientRefused, issuerBusy, issuerError, toLegalText, validationFailed } from './grant-errors.ts'
import { toParameters, type GrantRequest } from './grants.ts'

/**
 * Spends a grant at the token endpoint of the issuer: one request (but see `askIssuer`).
 *
 * @returns the token response, checked for form (RFC 6749 §5.1) but neither for signatures nor for its type
 * @throws GrantError `refused_by_issuer` with the issuer's own answer, `client_refused_by_issuer`, `issuer_busy`,
 * `issuer_unreachable`, `credentials_unavailable` (nothing was spent), `outcome_unknown`, `issuer_timeout` and `issuer_error`
 * (it may be), `token_validation_failed` (it is)
 *
 * @param onUnusable - called with the refresh token of an answer that is of no use otherwise
 */
export async function requestTokens(
  client: HelperClient,
  grant: GrantRequest,
  onUnusable: (refreshToken: string) => void,
): Promise<oauth.TokenEndpointResponse> {
  const answer = await askIssuer(client, 'token_endpoint', toParameters(grant))
  if (answer.status !== 200 || isErrorIn200(answer)) throw toRefusal(answer)
  try {
    return await readTokens(client, answer)
  } catch (error) {
    const refreshToken = answer.body?.['refresh_token']
    if (typeof refreshToken === 'string' && refreshToken !== '') onUnusable(refreshToken)
    throw error
  }
}

/** Some issuers send their refusals with the status of success. */
function isErrorIn200({ body }: IssuerAnswer): boolean {
  return typeof body?.['error'] === 'string' && body['access_token'] === undefined
}

/** What the issuer's answer means when it is not the one that was hoped for. */
export function toRefusal(answer: IssuerAnswer): GrantError {
  const { status, headers, body } = answer
  if (status >= 500 || (status >= 201 && status < 400)) return issuerError(status)
  if (isClientRefusal(answer)) return clientRefused()
  if (body === undefined || typeof body['error'] !== 'string' || body['error'] === '') {
    return status === 429 ? issuerBusy(headers.get('retry-after') ?? undefined) : issuerError(status)
  }
  return passThrough(answer, body)
}

/** What codes look like that anybody has defined. Whatever else is in their place may be a piece of the request. */
const LOGGED_WORD = /^[a-z][a-z_]{0,63}$/

/** The issuer's refusal as it is, in the form of RFC 6749 §5.2 whatever else the issuer put around it. */
function passThrough({ status, headers }: IssuerAnswer, body: Readonly<Record<string, unknown>>): GrantError {
  const { error, error_description: description, code: _code, ...members } = body
  const retryAfter = headers.get('retry-after')
  const word = toLegalText(String(error))
  return new GrantError('refused_by_issuer', {
    status: status === 200 ? 400 : status,
    error: word,
    description: typeof description === 'string' ? toLegalText(description) : undefined,
    members,
    headers: retryAfter === null ? undefined : { 'retry-after': toLegalText(retryAfter) },
    detail: { error: LOGGED_WORD.test(word) ? word : '(no plain word)', issuer_status: status },
  })
}

/**
 * The library checks the form of everything but the ID token, of which it knows neither aliases nor tenants:
 * `validateTokens` checks that.
 */
async function readTokens(client: HelperClient, { body }: IssuerAnswer): Promise<oauth.TokenEndpointResponse> {
  if (body === undefined) throw validationFailed('not a JSON object')
  const { id_token: idToken, ...members } = withoutEmpty(body)
  if (idToken !== undefined && typeof idToken !== 'string') throw validationFailed('id_token')
  const { token_type: type } = members
  const tokens = await processTokens(client, members)
  return {
    ...tokens,
    // The library writes it in lower case, which some callers put into a header field as it is.
    token_type: tokens.token_type === 'bearer' ? 'Bearer' : type,
    ...(idToken !== undefined && { id_token: idToken }),
  } as oauth.TokenEndpointResponse
}

async function processTokens({ issuer, clientId }: HelperClient, members: Readonly<Record<string, unknown>>) {
  const response = new Response(JSON.stringify(members), { headers: { 'content-type': 'application/json' } })
  // Whether the type is accepted is checked where a refused answer can be revoked.
  const anyType = { [String(members['token_type']).toLowerCase()]: () => undefined }
  try {
    return await oauth.processGenericTokenEndpointResponse(
      { issuer: issuer.issuer },
      { client_id: clientId },
      response,
      {
        recognizedTokenTypes: anyType,
      },
    )
  } catch (error) {
    if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
      throw validationFailed(error.code ?? 'form')
    }
    throw error
  }
}

/** Members that mean nothing when they are empty. */
const OPTIONAL = new Set(['refresh_token', 'id_token', 'scope', 'expires_in'])

function withoutEmpty(body: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const isEmpty = ([name, value]: [string, unknown]) => OPTIONAL.has(name) && (value === null || value === '')
  return Object.fromEntries(Object.entries(body).filter((member) => !isEmpty(member)))
}
