import * as oauth from 'oauth4webapi'
import { EgressError } from '../issuer/egress.ts'
import { isSafeUrl } from '../issuer/issuer.ts'
import type { Metadata } from '../issuer/metadata.ts'
import { readObject } from '../token/json.ts'
import type { Endpoint, HelperClient } from './clients.ts'
import { unanswered, unreachable } from './grant-errors.ts'

/** What an issuer answered. */
export interface IssuerAnswer {
  readonly status: number
  readonly headers: Headers
  /** As it came. */
  readonly text: string
  /** The body, when it is a JSON object. */
  readonly body: Readonly<Record<string, unknown>> | undefined
}

/**
 * Sends a form to an endpoint of the issuer, as the client. It is sent once; only when the issuer did not accept the client
 * itself (`invalid_client`, RFC 6749 §5.2: it has not looked at the grant then) and the credentials were just rotated, it is
 * sent once more with those before.
 *
 * @throws GrantError `credentials_unavailable`, `issuer_unreachable` (nothing was sent), `outcome_unknown` and
 * `issuer_timeout` (the grant may be spent)
 */
export async function askIssuer(
  client: HelperClient,
  endpoint: Endpoint,
  parameters: URLSearchParams,
): Promise<IssuerAnswer> {
  const attempts = client.authentication.attempts()
  const server = await describeServer(client, endpoint)
  for (const { apply, accepted } of attempts) {
    const answer = await send(client, server, endpoint, { parameters: new URLSearchParams(parameters), apply })
    if (isAcceptance(answer)) accepted()
    // Nothing less than this word says that the grant is untouched.
    const isUntouched = isClientRefusal(answer) && answer.body?.['error'] === 'invalid_client'
    if (!isUntouched || apply === attempts.at(-1)?.apply) return answer
  }
  throw new TypeError('a client without a way to authenticate')
}

/** Whether the issuer got past the client's credentials: it did what it was asked, or refused something else. */
function isAcceptance(answer: IssuerAnswer): boolean {
  const { status, body } = answer
  if (isClientRefusal(answer)) return false
  return status === 200 || (status >= 400 && status < 500 && typeof body?.['error'] === 'string')
}

/**
 * Whether the issuer did not accept the client's credentials. Keycloak says `unauthorized_client` for that, with the status
 * that no other error has (RFC 6749 §5.2).
 */
export function isClientRefusal({ status, headers, body }: IssuerAnswer): boolean {
  const error = body?.['error']
  // Some issuers send their refusals with the status of success.
  if (status === 200) return error === 'invalid_client' && body?.['access_token'] === undefined
  if (status < 400 || status >= 500) return false
  if (typeof error !== 'string') return status === 401 || headers.has('www-authenticate')
  return error === 'invalid_client' || (error === 'unauthorized_client' && status === 401)
}

/** The metadata that the library needs for one request: the endpoint, checked for TLS. */
async function describeServer(client: HelperClient, endpoint: Endpoint): Promise<oauth.AuthorizationServer> {
  const { issuer, endpoints, authentication } = client
  // For the audience of an assertion, whatever endpoint it is shown to.
  const needed = authentication.method === 'private_key_jwt' ? ([endpoint, 'token_endpoint'] as const) : [endpoint]
  const isKnown = needed.every((name) => endpoints[name] !== undefined)
  const metadata = isKnown ? undefined : await readMetadata(client)
  const url = endpoints[endpoint] ?? readEndpoint(metadata, endpoint, client)
  if (!isSafeUrl(url, client.insecureHttp)) throw unreachable(`the ${endpoint} of the metadata is not https`)
  const tokenEndpoint = endpoints.token_endpoint ?? metadata?.token_endpoint
  return {
    issuer: issuer.issuer,
    ...(tokenEndpoint !== undefined && { token_endpoint: tokenEndpoint }),
    [endpoint]: url,
  }
}

async function readMetadata({ issuer }: HelperClient): Promise<Metadata> {
  try {
    return await issuer.metadata()
  } catch (error) {
    throw unreachable(error instanceof EgressError ? error.code : 'no usable metadata')
  }
}

/** RFC 8705 §5: whoever shows a certificate may have to do so elsewhere. */
function readEndpoint(metadata: Metadata | undefined, endpoint: Endpoint, { authentication }: HelperClient): string {
  const alias = authentication.method === 'tls_client_auth' ? metadata?.mtls_endpoint_aliases?.[endpoint] : undefined
  const url = alias ?? metadata?.[endpoint]
  if (url === undefined) throw unreachable(`the metadata has no ${endpoint}`)
  return url
}

interface Sent {
  readonly parameters: URLSearchParams
  readonly apply: oauth.ClientAuth
}

async function send(
  client: HelperClient,
  server: oauth.AuthorizationServer,
  endpoint: Endpoint,
  sent: Sent,
): Promise<IssuerAnswer> {
  try {
    let credentials: readonly string[] = []
    const response = await REQUESTS[endpoint](server, { client_id: client.clientId }, sent, {
      [oauth.customFetch]: (url, init) => {
        credentials = readCredentials(init)
        return fetchOnce(client, url, init)
      },
      // The library allows https alone; describeServer() has checked what else the operator allows.
      [oauth.allowInsecureRequests]: true,
    })
    const text = await response.text()
    const body = readObject(Buffer.from(text))
    return {
      status: response.status,
      headers: response.headers,
      text,
      body: typeof body === 'string' ? undefined : hideCredentials(body, credentials),
    }
  } catch (error) {
    if (!(error instanceof EgressError)) throw error
    throw error.unsent ? unreachable(error.code) : unanswered(error.code)
  }
}

/** Anything shorter may occur by chance. */
const LEAST_SECRET = 8

/** What a request proves the client by, in each of the spellings in which an issuer could send it back. */
function readCredentials({ headers, body }: oauth.CustomFetchOptions<'POST', URLSearchParams>): readonly string[] {
  const basic = headers['authorization']?.replace(/^Basic /, '')
  const pair = basic === undefined ? '' : Buffer.from(basic, 'base64').toString()
  const password = pair.slice(pair.indexOf(':') + 1)
  const decoded = new URLSearchParams(`p=${password}`).get('p')
  const shown = [basic, password, decoded, body.get('client_secret'), body.get('client_assertion')]
  return shown
    .filter((text): text is string => typeof text === 'string' && text.length >= LEAST_SECRET)
    .flatMap((text) => [text, encodeURIComponent(text), new URLSearchParams({ p: text }).toString().slice(2)])
}

/** Answers other than tokens are passed on, and a careless issuer quotes the request in them. */
function hideCredentials(body: Readonly<Record<string, unknown>>, credentials: readonly string[]) {
  if (typeof body['error'] !== 'string') return body
  const hide = (text: string) => credentials.reduce((left, secret) => left.replaceAll(secret, '(hidden)'), text)
  return JSON.parse(JSON.stringify(body), (_name, value: unknown) =>
    typeof value === 'string' ? hide(value) : value,
  ) as Record<string, unknown>
}

type Options = oauth.HttpRequestOptions<'POST', URLSearchParams>
type Request = (
  server: oauth.AuthorizationServer,
  client: oauth.Client,
  sent: Sent,
  options: Options,
) => Promise<Response>

const REQUESTS: Readonly<Record<Endpoint, Request>> = {
  token_endpoint: (server, client, { parameters, apply }, options) =>
    oauth.genericTokenEndpointRequest(server, client, apply, parameters.get('grant_type') ?? '', parameters, options),
  device_authorization_endpoint: (server, client, { parameters, apply }, options) =>
    oauth.deviceAuthorizationRequest(server, client, apply, parameters, options),
  revocation_endpoint: (server, client, { parameters, apply }, options) =>
    oauth.revocationRequest(server, client, apply, parameters.get('token') ?? '', {
      ...options,
      additionalParameters: parameters,
    }),
}

async function fetchOnce(
  { egress, timeoutMs }: HelperClient,
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
