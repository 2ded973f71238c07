import { checkCallers } from './check-callers.ts'
import { checkClientIssuers, checkHelperClients } from './check-helper.ts'
import { checkEncodedField, checkIdentityFields, checkPrefix } from './check-identity.ts'
import { checkIssuers } from './check-issuers.ts'
import { checkHelperAddress, checkLoop, checkPorts, checkTrustedProxies } from './check-listen.ts'
import { checkOverlaps, checkRules } from './check-rules.ts'
import { checkSealing, checkStore } from './check-spending.ts'
import type { Path } from './document.ts'
import type { Config } from './schema.ts'
import { readUpstreamUrl } from './upstream-url.ts'

/** Something wrong at a place; load.ts adds file and line. */
export interface Fault {
  readonly path: Path
  readonly problem: string
  readonly hint?: string | undefined
  /** Another setting that is part of the problem. */
  readonly other?: Path
}

type Check = (config: Config) => Fault[]

/** Each check with the settings that it looks at; it is left out while one of them cannot be parsed. */
const CHECKS: readonly (readonly [Check, readonly string[]])[] = [
  [checkIssuers, ['issuers']],
  [checkUpstream, ['upstream.url']],
  [checkLoop, ['upstream.url', 'listen']],
  [checkPorts, ['listen', 'helper.clients']],
  [checkTrustedProxies, ['listen.trusted_proxies']],
  [checkRules, ['rules']],
  [checkOverlaps, ['rules', 'target']],
  [checkPrefix, ['identity.prefix']],
  [checkIdentityFields, ['identity.headers']],
  [checkEncodedField, ['identity.headers', 'identity.prefix']],
  [checkHelperClients, ['helper.clients']],
  [checkLimits, ['limits.header_bytes', 'limits.token_bytes']],
]

/** Checks that would take for missing what is there, but has a fault. */
const CHECKS_OF_WHOLE: readonly (readonly [Check, readonly string[]])[] = [
  [checkClientIssuers, ['helper.clients', 'issuers']],
  [checkHelperAddress, ['listen.helper', 'listen.insecure_helper_address', 'helper.callers']],
  [checkCallers, ['helper', 'issuers']],
  [checkUpstreamTls, ['upstream']],
  [checkStore, ['helper.store']],
  [checkSealing, ['helper.sealing', 'helper.callers']],
]

/**
 * The checks that concern more than one setting. Collects all faults.
 *
 * @param config - may lack settings that could not be parsed: what can be told without them is told
 * @param isWhole - whether everything at and below a setting could be parsed
 */
export function checkConfig(config: object, isWhole: (setting: string) => boolean): Fault[] {
  const run = ([check, needs]: (typeof CHECKS)[number]) =>
    needs.every((setting) => isThere(config, setting)) ? check(config as Config) : []
  const whole = CHECKS_OF_WHOLE.filter(([, needs]) => needs.every(isWhole))
  return [...CHECKS, ...whole].flatMap(run)
}

function isThere(config: object, setting: string): boolean {
  let value: unknown = config
  for (const name of setting.split('.')) value = (value as Record<string, unknown> | undefined)?.[name]
  return value !== undefined
}

function checkUpstream({ upstream }: Config): Fault[] {
  const { protocol, host, port, pathname, search } = new URL(upstream.url)
  const path: Path = ['upstream', 'url']
  if (protocol === 'unix:') return []
  if (port === '0') return [{ path, problem: 'has the port 0, on which nothing listens.' }]
  if (host !== '' && /^\/?$/.test(pathname) && search === '' && !/[/?]$/.test(upstream.url)) return []
  const problem = 'must be an origin, without a path, slash or query at its end.'
  return [{ path, problem, hint: `Targets are forwarded as they are: write ${protocol}//${host}.` }]
}

function checkUpstreamTls({ upstream }: Config): Fault[] {
  const { isTls } = readUpstreamUrl(upstream.url)
  const faults: Fault[] = []
  for (const key of ['ca_file', 'server_name', 'certificate_file', 'key_file'] as const) {
    if (isTls || upstream[key] === undefined) continue
    faults.push({ path: ['upstream', key], problem: 'is for an upstream with https or h2 alone.' })
  }
  if ((upstream.certificate_file === undefined) !== (upstream.key_file === undefined)) {
    faults.push({ path: ['upstream'], problem: 'needs both certificate_file and key_file, or neither.' })
  }
  return faults
}

function checkLimits({ limits }: Config): Fault[] {
  if (limits.header_bytes >= limits.token_bytes + 2048) return []
  return [{ path: ['limits', 'header_bytes'], problem: 'must be at least 2KiB more than token_bytes.' }]
}
