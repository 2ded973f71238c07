import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { isHttpUrl, isInsecure } from './hosts.ts'
import { nearest } from './nearest.ts'
import { NAME, type Config } from './schema.ts'

type ClientConfig = Config['helper']['clients'][string]

/** Clients alone and against each other. */
export function checkHelperClients({ helper }: Pick<Config, 'helper'>): Fault[] {
  const ids = new Map<string, string>()
  return Object.entries(helper.clients).flatMap(([name, client]) => {
    const at: Path = ['helper', 'clients', name]
    const faults = checkClientSecret(client, at)
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
  const { token_endpoint: endpoint } = client
  if (endpoint === undefined && issuer.discovery_url === undefined && !isHttpUrl(issuer.issuer)) {
    return [{ path: at, problem: 'needs token_endpoint: the issuer is no URL, so its metadata cannot be found.' }]
  }
  if (endpoint !== undefined && !issuer.insecure_http && isInsecure(endpoint)) {
    return [{ path: [...at, 'token_endpoint'], problem: 'is not https: the secret would travel in the clear.' }]
  }
  return []
}

function describeUnknownIssuer(name: string | undefined, names: readonly string[]): Omit<Fault, 'path'> {
  if (name === undefined) return { problem: `is missing: there are several, ${names.join(', ')}.` }
  const near = nearest(name, names)
  return {
    problem: `"${name}" is not the name of an issuer.`,
    hint: near === undefined ? `Known: ${names.join(', ')}.` : `Did you mean "${near}"?`,
  }
}

function checkClientSecret(client: ClientConfig, at: Path): Fault[] {
  const isPublic = client.client_authentication === 'none'
  if (isPublic && client.client_secret !== undefined) {
    return [{ path: [...at, 'client_secret'], problem: 'is not used with client_authentication: none.' }]
  }
  if (!isPublic && client.client_secret === undefined) {
    const hint = 'For a public client set client_authentication: none.'
    return [{ path: at, problem: 'needs client_secret.', hint }]
  }
  return []
}
