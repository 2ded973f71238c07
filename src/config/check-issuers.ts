import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { isHttpUrl, isInsecure } from './hosts.ts'
import { PRESET_SETTINGS } from './presets.ts'
import type { Config } from './schema.ts'

type IssuerConfig = Config['issuers'][number]

/** Checks the issuers, alone and against each other. */
export function checkIssuers({ issuers }: Pick<Config, 'issuers'>): Fault[] {
  const faults = issuers.flatMap((issuer, i): Fault[] => {
    const at: Path = ['issuers', i]
    const checks = [checkName, checkTenants, checkPreset, checkKeySource, checkKeyFiles, checkIssuerUrls]
    return checks.flatMap((check) => check(issuer, at))
  })
  return [...faults, ...checkTwins(issuers)]
}

/** Every spelling of `iss` belongs to one entry, and so does every name. */
function checkTwins(issuers: readonly IssuerConfig[]): Fault[] {
  const spellings = new Map<string, Path>()
  const names = new Map<string, Path>()
  return issuers.flatMap(({ issuer, issuer_aliases: aliases, name }, i): Fault[] => {
    const faults: Fault[] = []
    const all: [string, Path][] = [
      [issuer, ['issuers', i, 'issuer']],
      ...aliases.map((alias, position): [string, Path] => [alias, ['issuers', i, 'issuer_aliases', position]]),
    ]
    for (const [spelling, path] of all) {
      const other = spellings.get(spelling)
      spellings.set(spelling, other ?? path)
      if (other === undefined) continue
      const hint = 'List the audiences in one entry.'
      faults.push({ path, problem: 'names an issuer that is named before.', hint, other })
    }
    const other = names.get(name)
    names.set(name, other ?? ['issuers', i])
    if (other !== undefined && faults.length === 0) {
      const hint = 'Give each its own "name".'
      faults.push({ path: ['issuers', i, 'name'], problem: `"${name}" names another issuer, too.`, hint, other })
    }
    return faults
  })
}

const TENANT = '{tenantid}'

function checkName({ issuer, issuer_aliases: aliases }: IssuerConfig, at: Path): Fault[] {
  const faults: Fault[] = []
  const path = [...at, 'issuer']
  if (isHttpUrl(issuer) && /^[^/]*\/\/[^/?#]*@/.test(issuer)) {
    faults.push({ path, problem: 'must not hold a user name or password.' })
  }
  const unknown = /\{[^}]*\}?/.exec(issuer.replace(TENANT, ''))?.[0]
  if (unknown !== undefined) {
    faults.push({ path, problem: `holds ${unknown}: the only placeholder is one ${TENANT}, written like this.` })
  }
  aliases.forEach((alias, i) => {
    if (!/[{}]/.test(alias)) return
    const hint = 'Give it an entry of its own.'
    faults.push({ path: [...at, 'issuer_aliases', i], problem: 'cannot hold a placeholder.', hint })
  })
  return faults
}

function checkPreset(issuer: IssuerConfig, at: Path): Fault[] {
  const faults = PRESET_SETTINGS[issuer.preset].check?.(issuer) ?? []
  return faults.map(({ setting = 'issuer', ...fault }) => ({ ...fault, path: [...at, setting] }))
}

/** An issuer with a placeholder stands for many, and most of them are strangers. */
function checkTenants({ issuer, tenants, insecure_any_tenant: any }: IssuerConfig, at: Path): Fault[] {
  const isTemplate = issuer.includes(TENANT)
  if (isTemplate && tenants === undefined && !any) {
    const hint = 'List the ids of the tenants, or set insecure_any_tenant: true.'
    return [{ path: at, problem: 'needs tenants: anybody can make a tenant and get tokens there.', hint }]
  }
  if (isTemplate && tenants !== undefined && any) {
    const hint = 'Remove one of the two.'
    return [{ path: [...at, 'tenants'], problem: 'means nothing with insecure_any_tenant: true.', hint }]
  }
  if (isTemplate || tenants === undefined) return []
  return [{ path: [...at, 'tenants'], problem: `is for an issuer that holds ${TENANT}; this one names its tenant.` }]
}

function checkKeySource(issuer: IssuerConfig, at: Path): Fault[] {
  const sources = (['jwks_uri', 'jwks_file', 'discovery_url'] as const).filter((key) => issuer[key] !== undefined)
  const second = sources[1]
  if (second !== undefined) return [{ path: [...at, second], problem: `cannot stand beside ${sources[0]}: keep one.` }]
  if (sources.length === 0 && !isHttpUrl(issuer.issuer)) {
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
