import { GrantError } from '../errors.ts'
import type { Allowed, HelperClient } from './clients.ts'
import { invalidRequest, notAllowed } from './grant-errors.ts'
import type { TokenRequest } from './request.ts'
import { readHint, type Subject } from './subjects.ts'

const URN = 'urn:ietf:params:oauth:grant-type:'

/** The grant types that are known here, with the names they have in configuration, logs and metrics. */
export const GRANT_TYPES = {
  refresh_token: 'refresh_token',
  authorization_code: 'authorization_code',
  [`${URN}device_code`]: 'device_code',
  client_credentials: 'client_credentials',
  [`${URN}token-exchange`]: 'token_exchange',
} as const satisfies Record<string, string>

export type GrantName = 'refresh_token' | 'authorization_code' | 'device_code' | 'client_credentials' | 'token_exchange'

/** What every grant may carry. */
export interface Targets {
  readonly scope: string | undefined
  /** RFC 8707. */
  readonly resources: readonly string[]
  /** One, but for token exchange. */
  readonly audiences: readonly string[]
}

export interface RefreshGrant extends Targets {
  readonly type: 'refresh_token'
  readonly refreshToken: string
  /** Whom the caller knows it to be about; stays here. */
  readonly subject: Subject | undefined
}

export interface CodeGrant extends Targets {
  readonly type: 'authorization_code'
  readonly code: string
  readonly codeVerifier: string | undefined
  readonly redirectUri: string
  /** What the ID token must repeat; stays here. */
  readonly nonce: string | undefined
}

export interface DeviceGrant extends Targets {
  readonly type: 'device_code'
  readonly deviceCode: string
  /** How long the caller waits for the user, in milliseconds; 0 for one look. */
  readonly waitMs: number
}

export interface ClientCredentialsGrant extends Targets {
  readonly type: 'client_credentials'
}

export interface TokenExchangeGrant extends Targets {
  readonly type: 'token_exchange'
  /** The parameters of RFC 8693 §2.1 beside those of every grant, as they came. */
  readonly parameters: readonly (readonly [string, string])[]
}

export type GrantRequest = RefreshGrant | CodeGrant | DeviceGrant | ClientCredentialsGrant | TokenExchangeGrant

/** The name of the grant that a request asks for, as far as it is known here. */
export function readGrantName({ parameters }: TokenRequest): GrantName | undefined {
  const type = parameters.get('grant_type') ?? ''
  return Object.hasOwn(GRANT_TYPES, type) ? GRANT_TYPES[type as keyof typeof GRANT_TYPES] : undefined
}

/**
 * Reads the grant of a token request. Parameters that mean nothing to it are passed over, as RFC 6749 §3.2 says.
 *
 * @throws GrantError `request_invalid`, `grant_not_supported`, `grant_not_allowed`, `parameter_not_allowed`
 * @see RFC 6749 §4.1.3, §4.4.2 and §6, RFC 8628 §3.4, RFC 8693 §2.1
 */
export function readGrant(request: TokenRequest, client: HelperClient): GrantRequest {
  const name = readGrantName(request)
  if (name === undefined) throw unsupportedGrant(request.parameters.get('grant_type'))
  if (!client.allowed.grants.has(name)) throw grantNotAllowed(name)
  const targets = readTargets(request, client.allowed)
  if (name !== 'token_exchange' && targets.audiences.length > 1) {
    throw invalidRequest('The parameter audience occurs more than once.')
  }
  return READERS[name](request, targets, client)
}

type Reader = (request: TokenRequest, targets: Targets, client: HelperClient) => GrantRequest

const READERS: Readonly<Record<GrantName, Reader>> = {
  refresh_token: (request, targets) => ({
    type: 'refresh_token',
    refreshToken: required(request, 'refresh_token'),
    subject: readHint(request.parameters.get('id_token_hint')),
    ...targets,
  }),
  authorization_code: readCode,
  device_code: (request, targets) => ({
    type: 'device_code',
    deviceCode: required(request, 'device_code'),
    waitMs: readWait(request.parameters.get('wait')),
    ...targets,
  }),
  client_credentials: (_request, targets) => ({ type: 'client_credentials', ...targets }),
  token_exchange: readTokenExchange,
}

function required({ parameters }: TokenRequest, name: string): string {
  const value = parameters.get(name)
  if (value === undefined) throw invalidRequest(`The parameter ${name} is missing.`)
  return value
}

/** RFC 7636 §4.1. */
const CODE_VERIFIER = /^[A-Za-z0-9._~-]{43,128}$/

function readCode(request: TokenRequest, targets: Targets, { allowed, isPublic }: HelperClient): GrantRequest {
  const code = required(request, 'code')
  const redirectUri = required(request, 'redirect_uri')
  if (!allowed.redirectUris.includes(redirectUri)) {
    throw notAllowed('invalid_request', 'This redirect_uri is not configured for the client.')
  }
  const codeVerifier = request.parameters.get('code_verifier')
  if (codeVerifier === undefined && isPublic) {
    throw invalidRequest('The parameter code_verifier is missing: a public client needs PKCE.')
  }
  if (codeVerifier !== undefined && !CODE_VERIFIER.test(codeVerifier)) {
    throw invalidRequest('code_verifier must be 43 to 128 letters, digits, "-", ".", "_" and "~".')
  }
  const nonce = request.parameters.get('nonce')
  return { type: 'authorization_code', code, codeVerifier, redirectUri, nonce, ...targets }
}

/** Longest time that a caller may wait for the user of a device, in seconds. */
const MAX_WAIT_SECONDS = 120

function readWait(text: string | undefined): number {
  if (text === undefined) return 0
  if (!/^\d{1,4}$/.test(text) || Number(text) > MAX_WAIT_SECONDS) {
    throw invalidRequest(`wait must be a whole number of seconds from 0 to ${MAX_WAIT_SECONDS}.`)
  }
  return Number(text) * 1000
}

const EXCHANGE = ['requested_token_type', 'actor_token', 'actor_token_type'] as const

function readTokenExchange(request: TokenRequest, targets: Targets): GrantRequest {
  const subject = ['subject_token', 'subject_token_type'].map((name) => [name, required(request, name)] as const)
  const { parameters } = request
  if (parameters.has('actor_token') !== parameters.has('actor_token_type')) {
    throw invalidRequest('actor_token and actor_token_type belong together.')
  }
  const others = EXCHANGE.flatMap((name) => {
    const value = parameters.get(name)
    return value === undefined ? [] : [[name, value] as const]
  })
  return { type: 'token_exchange', parameters: [...subject, ...others], ...targets }
}

/** The scope, resources and audiences of a request, as far as the client's lists allow them. */
export function readTargets({ parameters, resources, audiences }: TokenRequest, allowed: Allowed): Targets {
  const scope = parameters.get('scope')
  if (!areAllowed(scope?.split(' ').filter((one) => one !== '') ?? [], allowed.scopes)) {
    throw notAllowed('invalid_scope', 'A scope is not configured for the client.')
  }
  if (!areAllowed(resources, allowed.resources)) {
    throw notAllowed('invalid_target', 'A resource is not configured for the client.')
  }
  if (!areAllowed(audiences, allowed.audiences)) {
    throw notAllowed('invalid_target', 'An audience is not configured for the client.')
  }
  return { scope, resources, audiences }
}

function areAllowed(values: readonly string[], allowed: ReadonlySet<string> | undefined): boolean {
  return allowed === undefined || values.every((value) => allowed.has(value))
}

function unsupportedGrant(type: string | undefined): GrantError {
  if (type === undefined) return invalidRequest('The parameter grant_type is missing.')
  const encoded = /^urn%3a/i.test(type)
  return new GrantError('grant_not_supported', {
    status: 400,
    error: 'unsupported_grant_type',
    description: encoded
      ? 'The grant_type is percent-encoded once too often: in JSON it is written as it is, with ":".'
      : `The grant types here are ${Object.keys(GRANT_TYPES).join(', ')}.`,
  })
}

/** The client may not have this grant (RFC 6749 §5.2). */
export function grantNotAllowed(name: GrantName): GrantError {
  return new GrantError('grant_not_allowed', {
    status: 400,
    error: 'unauthorized_client',
    description: `The grant ${name} is not configured for the client.`,
  })
}

/** The parameters of a token request to the issuer, but for those that authenticate the client. */
export function toParameters(grant: GrantRequest): URLSearchParams {
  const [type] = Object.entries(GRANT_TYPES).find(([, name]) => name === grant.type) as [string, GrantName]
  return new URLSearchParams([...ownParameters(grant), ['grant_type', type], ...targetParameters(grant)])
}

/** The parameters that say what for. */
export function targetParameters({ scope, resources, audiences }: Targets): URLSearchParams {
  const parameters = new URLSearchParams(scope === undefined ? {} : { scope })
  for (const resource of resources) parameters.append('resource', resource)
  for (const audience of audiences) parameters.append('audience', audience)
  return parameters
}

function ownParameters(grant: GrantRequest): [string, string][] {
  switch (grant.type) {
    case 'refresh_token':
      return [['refresh_token', grant.refreshToken]]
    case 'authorization_code': {
      const { code, redirectUri, codeVerifier } = grant
      const verifier: [string, string][] = codeVerifier === undefined ? [] : [['code_verifier', codeVerifier]]
      return [['code', code], ['redirect_uri', redirectUri], ...verifier]
    }
    case 'device_code':
      return [['device_code', grant.deviceCode]]
    case 'client_credentials':
      return []
    case 'token_exchange':
      return grant.parameters.map(([name, value]) => [name, value])
  }
}
