import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { isHttpUrl, isInsecure } from './hosts.ts'
import { nearest } from './nearest.ts'
import { NAME } from './names.ts'
import type { Config } from './schema.ts'

type ClientConfig = Config['helper']['clients'][string]

/** Clients alone and against each other. */
export function checkHelperClients({ helper }: Pick<Config, 'helper'>): Fault[] {
  const ids = new Map<string, string>()
  return Object.entries(helper.clients).flatMap(([name, client]) => {
    const at: Path = ['helper', 'clients', name]
    const faults = [...checkAuthentication(client, at), ...checkGrants(client, at)]
    if (!NAME.test(name)) faults.push({ path: at, problem: 'must be named in lower case.' })
    const twin = ids.get(client.client_id)
    if (twin !== undefined) faults.push({ path: [...at, 'client_id'], problem: `is that of client ${twin}, too.` })
    ids.set(client.client_id, name)
    return faults
  })
}

/** Clients against the issuers. */
export function checkClientIssuers({ helper, issuers }: Pick<Config, 'helper' | 'issuers'>): Fault[] {
  return Object.entries(helper.clients).flatMap(([name, client]) =>
    checkClientIssuer(client, issuers, ['helper', 'clients', name]),
  )
}

function checkClientIssuer(client: ClientConfig, issuers: Config['issuers'], at: Path): Fault[] {
  const only = issuers.length === 1 ? issuers[0] : undefined
  const issuer = client.issuer === undefined ? only : issuers.find(({ name }) => name === client.issuer)
  if (issuer === undefined) {
    const names = issuers.map(({ name }) => name)
    return [{ path: [...at, 'issuer'], ...describeUnknownIssuer(client.issuer, names) }]
  }
  if (client.token_endpoint === undefined && issuer.discovery_url === undefined && !isHttpUrl(issuer.issuer)) {
    return [{ path: at, problem: 'needs token_endpoint: the issuer is no URL, so its metadata cannot be found.' }]
  }
  return ENDPOINTS.flatMap((name) => {
    const endpoint = client[name]
    if (endpoint === undefined || issuer.insecure_http || !isInsecure(endpoint)) return []
    return [{ path: [...at, name], problem: 'is not https: the secret would travel in the clear.' }]
  })
}

const ENDPOINTS = ['token_endpoint', 'device_authorization_endpoint', 'revocation_endpoint'] as const

function describeUnknownIssuer(name: string | undefined, names: readonly string[]): Omit<Fault, 'path'> {
  if (name === undefined) return { problem: `is missing: there are several, ${names.join(', ')}.` }
  const near = nearest(name, names)
  return {
    problem: `"${name}" is not the name of an issuer.`,
    hint: near === undefined ? `Known: ${names.join(', ')}.` : `Did you mean "${near}"?`,
  }
}

type Setting = keyof ClientConfig & string

/** What each way to authenticate takes, and what it needs of that. */
const AUTHENTICATION: Readonly<Record<ClientConfig['client_authentication'], { takes: Setting[]; needs: Setting[] }>> =
  {
    client_secret_basic: { takes: ['client_secret', 'secret_encoding'], needs: ['client_secret'] },
    client_secret_post: { takes: ['client_secret'], needs: ['client_secret'] },
    private_key_jwt: { takes: ['key_file', 'key_id', 'key_algorithm', 'assertion_audience'], needs: ['key_file'] },
    tls_client_auth: { takes: ['certificate_file', 'key_file'], needs: ['certificate_file', 'key_file'] },
    none: { takes: [], needs: [] },
  }
const CREDENTIALS = new Set(Object.values(AUTHENTICATION).flatMap(({ takes }) => takes))

function checkAuthentication(client: ClientConfig, at: Path): Fault[] {
  const method = client.client_authentication
  const { takes, needs } = AUTHENTICATION[method]
  const hint = needs.includes('client_secret') ? 'For a public client set client_authentication: none.' : undefined
  return [
    ...needs
      .filter((name) => client[name] === undefined)
      .map((name) => ({ path: at, problem: `needs ${name}.`, ...(hint && { hint }) })),
    ...[...CREDENTIALS]
      .filter((name) => client[name] !== undefined && !takes.includes(name))
      .map((name) => ({ path: [...at, name], problem: `is not used with client_authentication: ${method}.` })),
  ]
}

function checkGrants(client: ClientConfig, at: Path): Fault[] {
  const { grants, redirect_uris: uris, client_authentication: method } = client
  const faults: Fault[] = []
  if (uris.length > 0 && !grants.includes('authorization_code')) {
    faults.push({ path: [...at, 'redirect_uris'], problem: 'is not used: grants does not list authorization_code.' })
  }
  if (method === 'none' && grants.includes('client_credentials')) {
    const problem = 'lists client_credentials, but a public client has no credentials.'
    faults.push({ path: [...at, 'grants'], problem })
  }
  return faults
}
