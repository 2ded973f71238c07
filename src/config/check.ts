import { BlockList, isIP, isIPv6 } from 'node:net'
import { checkRules } from './check-rules.ts'
import type { Path } from './document.ts'
import { nearest } from './nearest.ts'
import { PRESET_SETTINGS } from './presets.ts'
import { NAME, type Config } from './schema.ts'

/** Something wrong at a place; load.ts adds file and line. */
export interface Fault {
  readonly path: Path
  readonly problem: string
  readonly hint?: string | undefined
  /** Another setting that is part of the problem. */
  readonly other?: Path
}

type Check = (config: Config) => Fault[]

/** Each check with the groups of settings that it looks at. */
const CHECKS: readonly (readonly [Check, readonly (keyof Config)[]])[] = [
  [checkIssuers, ['issuers']],
  [checkUpstream, ['upstream']],
  [checkLoop, ['upstream', 'listen']],
  [checkListen, ['listen', 'helper']],
  [checkRules, ['rules', 'target']],
  [checkIdentity, ['identity']],
  [checkHelper, ['helper', 'issuers']],
  [checkLimits, ['limits']],
]

/**
 * The checks that concern more than one setting. Collects all faults.
 *
 * @param config - may lack groups that could not be parsed: what can be told without them is told
 */
export function checkConfig(config: Partial<Config>): Fault[] {
  return CHECKS.flatMap(([check, needs]) =>
    needs.every((key) => config[key] !== undefined) ? check(config as Config) : [],
  )
}

/** Whether a host name or address means this machine. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(host)
}

function isInsecure(url: string): boolean {
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname)
}

type IssuerConfig = Config['issuers'][number]

function checkIssuers({ issuers }: Config): Fault[] {
  return issuers.flatMap((issuer, i) => {
    const at: Path = ['issuers', i]
    const faults: Fault[] = [...checkTenants(issuer, at), ...checkPreset(issuer, at)]
    faults.push(...checkKeySource(issuer, at), ...checkKeyFiles(issuer, at), ...checkIssuerUrls(issuer, at))
    const twin = issuers.findIndex((other) => other.issuer === issuer.issuer)
    if (twin < i) {
      const hint = 'List the audiences in one entry.'
      faults.push({ path: [...at, 'issuer'], problem: `is the same as issuers[${twin}].issuer.`, hint })
    } else if (issuers.findIndex(({ name }) => name === issuer.name) < i) {
      const hint = 'Give each its own "name".'
      faults.push({ path: [...at, 'name'], problem: `"${issuer.name}" names another issuer, too.`, hint })
    }
    return faults
  })
}

function checkPreset(issuer: IssuerConfig, at: Path): Fault[] {
  const faults = PRESET_SETTINGS[issuer.preset].check?.(issuer) ?? []
  return faults.map((fault) => ({ ...fault, path: [...at, 'issuer'] }))
}

/** An issuer with a placeholder stands for many, and most of them are strangers. */
function checkTenants({ issuer, tenants, insecure_any_tenant: any }: IssuerConfig, at: Path): Fault[] {
  const isTemplate = issuer.includes('{tenantid}')
  if (isTemplate && tenants === undefined && !any) {
    const hint = 'List the ids of the tenants, or set insecure_any_tenant: true.'
    return [{ path: at, problem: 'needs tenants: anybody can make a tenant and get tokens there.', hint }]
  }
  if (isTemplate || tenants === undefined) return []
  return [{ path: [...at, 'tenants'], problem: 'is for an issuer that holds {tenantid}; this one names its tenant.' }]
}

function checkKeySource(issuer: IssuerConfig, at: Path): Fault[] {
  const sources = (['jwks_uri', 'jwks_file', 'discovery_url'] as const).filter((key) => issuer[key] !== undefined)
  const second = sources[1]
  if (second !== undefined) return [{ path: [...at, second], problem: `cannot stand beside ${sources[0]}: keep one.` }]
  if (sources.length === 0 && !(/^https?:\/\//i.test(issuer.issuer) && URL.canParse(issuer.issuer))) {
    const problem = 'is not a valid http or https URL, so its keys cannot be found from it.'
    return [{ path: [...at, 'issuer'], problem, hint: 'Add jwks_uri, jwks_file or discovery_url.' }]
  }
  return []
}

/** Files for fetching keys beside a setting that makes them pointless. */
function checkKeyFiles(issuer: IssuerConfig, at: Path): Fault[] {
  const faults: Fault[] = []
  for (const key of ['jwks_seed_file', 'jwks_bearer_token_file'] as const) {
    if (issuer.jwks_file === undefined || issuer[key] === undefined) continue
    faults.push({ path: [...at, key], problem: 'cannot stand beside jwks_file: nothing is fetched then.' })
  }
  if (issuer.jwks_seed_file !== undefined && issuer.jwks_max_stale === 0) {
    const problem = 'is never used with jwks_max_stale: 0s, because keys from a file count as stale.'
    faults.push({ path: [...at, 'jwks_seed_file'], problem })
  }
  return faults
}

function checkIssuerUrls(issuer: IssuerConfig, at: Path): Fault[] {
  const found: Fault[] = []
  for (const key of ['issuer', 'jwks_uri', 'discovery_url'] as const) {
    const url = issuer[key]
    // An issuer that is only compared, with its keys elsewhere, is never connected to.
    const compared = key === 'issuer' && (issuer.jwks_uri ?? issuer.jwks_file ?? issuer.discovery_url) !== undefined
    if (url === undefined || compared || issuer.insecure_http || !URL.canParse(url) || !isInsecure(url)) continue
    const problem = 'is not https, so whoever is in between could replace the keys.'
    found.push({ path: [...at, key], problem, hint: 'Use https, or set insecure_http: true if you must.' })
  }
  return found
}

function checkUpstream({ upstream }: Config): Fault[] {
  const { protocol, host, port, pathname, search } = new URL(upstream.url)
  const path: Path = ['upstream', 'url']
  if (protocol === 'unix:') return checkUpstreamTls(upstream, false)
  if (port === '0') return [{ path, problem: 'has the port 0, on which nothing listens.' }]
  if (/^\/?$/.test(pathname) && search === '' && !/[/?]$/.test(upstream.url)) {
    return checkUpstreamTls(upstream, protocol === 'https:')
  }
  const problem = 'must be an origin, without a path, slash or query at its end.'
  return [{ path, problem, hint: `Targets are forwarded as they are: write ${protocol}//${host}.` }]
}

function checkUpstreamTls(upstream: Config['upstream'], isTls: boolean): Fault[] {
  const faults: Fault[] = []
  for (const key of ['ca_file', 'server_name', 'certificate_file', 'key_file'] as const) {
    if (isTls || upstream[key] === undefined) continue
    faults.push({ path: ['upstream', key], problem: 'is for an upstream with https alone.' })
  }
  if ((upstream.certificate_file === undefined) !== (upstream.key_file === undefined)) {
    faults.push({ path: ['upstream'], problem: 'needs both certificate_file and key_file, or neither.' })
  }
  return faults
}

/** A request that comes back as another request never ends. */
function checkLoop({ upstream, listen }: Config): Fault[] {
  const { protocol, hostname, port } = new URL(upstream.url)
  const standard = protocol === 'https:' ? 443 : 80
  if (!isLoopback(hostname) || Number(port === '' ? standard : port) !== listen.proxy.port) return []
  return [{ path: ['upstream', 'url'], problem: 'is the address of listen.proxy: bearward would be its own backend.' }]
}

function checkListen({ listen, helper }: Config): Fault[] {
  const faults: Fault[] = []
  const active = (['proxy', 'ops', 'helper'] as const).filter(
    (name) => name !== 'helper' || Object.keys(helper.clients).length > 0,
  )
  const seen = new Map<number, string>()
  for (const name of active) {
    const { port } = listen[name]
    const other = seen.get(port)
    if (other !== undefined && port !== 0) {
      faults.push({ path: ['listen', name], problem: `has the port of listen.${other}; each needs its own.` })
    }
    seen.set(port, name)
  }
  if (!isLoopback(listen.helper.host) && !listen.insecure_helper_address) {
    const problem = 'is not loopback: whoever reaches the helper can spend grants as the configured clients.'
    faults.push({
      path: ['listen', 'helper'],
      problem,
      hint: 'Use 127.0.0.1, or set listen.insecure_helper_address: true.',
    })
  }
  listen.trusted_proxies.forEach((range, i) => {
    const problem = rangeProblem(range)
    if (problem !== undefined) faults.push({ path: ['listen', 'trusted_proxies', i], problem })
  })
  return faults
}

function rangeProblem(range: string): string | undefined {
  const [address = '', bits, ...rest] = range.split('/')
  if (address.includes('%')) return 'must not name a zone ("%").'
  if (isIP(address) === 0 || rest.length > 0) return 'must be an address or a CIDR range, such as 10.0.0.0/8.'
  if (bits === undefined) return undefined
  if (!/^\d{1,3}$/.test(bits) || Number(bits) > (isIPv6(address) ? 128 : 32)) return 'has no such prefix length.'
  if (Number(bits) === 0) return 'would trust everybody, and so let every caller choose its own address.'
  new BlockList().addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4')
  return undefined
}

/** Fields that belong to the protocol or to a decision made before; an identity header must not replace them. */
const PROTOCOL_FIELD =
  /^(host|authorization|cookie|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|forwarded|via|x-request-id|(content|proxy|x-forwarded)-.*)$/

/** Families of fields that callers and proxies need; a reserved prefix must not sweep them away. */
const FAMILIES = (
  'accept- access-control- cache- connection- content- forwarded- host- if- keep- last- max- proxy- sec- transfer- ' +
  'upgrade- user- www- x-forwarded- x-http- x-original- x-real- x-request-'
).split(' ')

function checkPrefix({ identity: { prefix } }: Config): Fault[] {
  const family = FAMILIES.find((one) => one.startsWith(prefix) || prefix.startsWith(one))
  if (family === undefined) return []
  const problem = `"${prefix}" would remove fields of the protocol (${family}…) from every request.`
  return [{ path: ['identity', 'prefix'], problem, hint: 'Choose one of your own, such as x-auth-.' }]
}

function checkIdentity(config: Config): Fault[] {
  const { identity } = config
  const seen = new Set<string>()
  const faults = identity.headers.flatMap(({ header }, i): Fault[] => {
    const path: Path = ['identity', 'headers', i, 'header']
    const canonical = header.replaceAll('_', '-')
    if (PROTOCOL_FIELD.test(canonical)) return [{ path, problem: `"${header}" belongs to the protocol.` }]
    if (canonical === `${identity.prefix}encoded`) return [{ path, problem: `"${header}" is set by bearward itself.` }]
    if (seen.has(canonical)) return [{ path, problem: `"${header}" is set twice (backends read "_" as "-").` }]
    seen.add(canonical)
    return []
  })
  return [...checkPrefix(config), ...faults]
}

type ClientConfig = Config['helper']['clients'][string]

function checkHelper({ helper, issuers }: Config): Fault[] {
  const ids = new Map<string, string>()
  return Object.entries(helper.clients).flatMap(([name, client]) => {
    const at: Path = ['helper', 'clients', name]
    const faults = [...checkClientIssuer(client, issuers, at), ...checkClientSecret(client, at)]
    if (!NAME.test(name)) faults.push({ path: at, problem: 'must be named in lower case.' })
    const twin = ids.get(client.client_id)
    if (twin !== undefined) faults.push({ path: [...at, 'client_id'], problem: `is that of client ${twin}, too.` })
    ids.set(client.client_id, name)
    return faults
  })
}

function checkClientIssuer(client: ClientConfig, issuers: Config['issuers'], at: Path): Fault[] {
  const only = issuers.length === 1 ? issuers[0] : undefined
  const issuer = client.issuer === undefined ? only : issuers.find(({ name }) => name === client.issuer)
  if (issuer === undefined) {
    const names = issuers.map(({ name }) => name)
    return [{ path: [...at, 'issuer'], ...describeUnknownIssuer(client.issuer, names) }]
  }
  const { token_endpoint: endpoint } = client
  if (endpoint === undefined && issuer.discovery_url === undefined && !URL.canParse(issuer.issuer)) {
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

function checkLimits({ limits }: Config): Fault[] {
  if (limits.header_bytes >= limits.token_bytes + 2048) return []
  return [{ path: ['limits', 'header_bytes'], problem: 'must be at least 2KiB more than token_bytes.' }]
}
