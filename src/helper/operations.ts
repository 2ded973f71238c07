import type { Caller } from './caller.ts'
import type { HelperClient } from './clients.ts'
import { startDevice } from './device.ts'
import { exchange, type ExchangeTools } from './exchange.ts'
import { invalidRequest } from './grant-errors.ts'
import { grantNotAllowed, readGrant, readGrantName, readTargets, targetParameters, type GrantName } from './grants.ts'
import type { TokenRequest } from './request.ts'
import { revokeToken } from './revocation.ts'
import { bind, openRefreshToken, type SharedAnswer } from './spending.ts'

/** What a request was about, for logs and metrics. */
export type Subject = GrantName | 'device_authorization' | 'revocation' | 'metadata' | 'other'

/** A request that was read: who asks, in the name of which client, for what. */
export interface Call {
  readonly caller: Caller
  readonly client: HelperClient
  readonly request: TokenRequest
  /** The caller left, or the process ends. */
  readonly gone: AbortSignal
  /** Called when the answer is one that was got for another request. */
  readonly onShared: (by: SharedAnswer) => void
}

/** One endpoint. */
export interface Operation {
  readonly subject: (request: TokenRequest) => Subject
  /** The body of the answer. Throws GrantError. */
  readonly run: (call: Call, tools: ExchangeTools) => Promise<Readonly<Record<string, unknown>>>
}

const token: Operation = {
  subject: (request) => readGrantName(request) ?? 'other',
  run: async ({ request, ...call }, tools) => ({
    ...(await exchange({ ...call, grant: readGrant(request, call.client) }, tools)),
  }),
}

const deviceAuthorization: Operation = {
  subject: () => 'device_authorization',
  run: ({ client, request }, { devices }) => {
    if (!client.allowed.grants.has('device_code')) throw grantNotAllowed('device_code')
    return startDevice(client, targetParameters(readTargets(request, client.allowed)), devices)
  },
}

const revocation: Operation = {
  subject: () => 'revocation',
  run: async ({ client, caller, request: { parameters } }, { spending }) => {
    const value = parameters.get('token')
    if (value === undefined) throw invalidRequest('The parameter token is missing.')
    const hint = parameters.get('token_type_hint')
    // Access tokens are never sealed.
    const isSealable = hint !== 'access_token'
    const opened = isSealable ? await openRefreshToken(value, bind(client, caller), spending) : undefined
    await revokeToken(client, opened?.refreshToken ?? value, hint)
    // RFC 7009 §2.2 leaves the body open, and some libraries insist on JSON.
    return {}
  },
}

/** What is served with POST, by path; each under the name that the documents of Auth0 use, too. */
export const OPERATIONS: Readonly<Record<string, Operation>> = {
  '/oauth2/token': token,
  '/oauth/token': token,
  '/oauth2/device_authorization': deviceAuthorization,
  '/oauth/device/code': deviceAuthorization,
  '/oauth2/revoke': revocation,
  '/oauth/revoke': revocation,
}
