import type { Problem } from '../errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Where a variable goes in the file's shape. */
const OVERRIDES = {
  BEARWARD_UPSTREAM: ['upstream', 'url'],
  BEARWARD_PROXY_LISTEN: ['listen', 'proxy'],
  BEARWARD_OPS_LISTEN: ['listen', 'ops'],
  BEARWARD_HELPER_LISTEN: ['listen', 'helper'],
  BEARWARD_LOG_LEVEL: ['telemetry', 'log_level'],
} as const

const ISSUER_VARIABLES = ['BEARWARD_ISSUER', 'BEARWARD_AUDIENCE', 'BEARWARD_JWKS_URI'] as const

/** Every variable, with what it sets. Others that begin alike are no concern: Kubernetes makes up `BEARWARD_PORT`,
 * `BEARWARD_SERVICE_HOST` and more for a Service of this name. */
export const VARIABLES: readonly { readonly name: string; readonly sets: string }[] = [
  { name: 'BEARWARD_ISSUER', sets: 'issuers[0].issuer (without a file only)' },
  { name: 'BEARWARD_AUDIENCE', sets: 'issuers[0].audience, several separated by commas (without a file only)' },
  { name: 'BEARWARD_JWKS_URI', sets: 'issuers[0].jwks_uri (without a file only)' },
  ...Object.entries(OVERRIDES).map(([name, path]) => ({
    name,
    sets: name === 'BEARWARD_UPSTREAM' ? 'upstream' : path.join('.'),
  })),
  { name: 'POD_IP', sets: 'addresses of the pod, where the upstream should not answer; it warns when it does' },
  { name: 'HTTPS_PROXY', sets: 'the proxy for requests to issuers, as a URL (or https_proxy)' },
  {
    name: 'NO_PROXY',
    sets: 'hosts that are reached without it, separated by commas (or no_proxy); this machine always is',
  },
]

type Values = Record<string, unknown>

export interface FromEnvironment {
  readonly values: Values
  /** Which variable a setting came from, by path. */
  readonly origins: ReadonlyMap<string, string>
  readonly problems: readonly Problem[]
}

/**
 * Lays the environment over the values of a file. An empty variable counts as unset.
 *
 * @param values - of the file, or `undefined` without one: then the environment must describe the one issuer
 * @param file - name of the file, for problems
 */
export function applyEnvironment(
  values: Values | undefined,
  env: Environment,
  file: string | undefined,
): FromEnvironment {
  const result: Values = { ...values }
  const origins = new Map<string, string>()
  const problems: Problem[] = []
  const given = (name: string) => (env[name] === undefined || env[name] === '' ? undefined : env[name])

  for (const [name, [group, key]] of Object.entries(OVERRIDES)) {
    const value = given(name)
    if (value === undefined) continue
    const before = result[group]
    // Whatever else stands there is a mistake that must not vanish behind the variable.
    if (before === null || Array.isArray(before) || !['object', 'undefined'].includes(typeof before)) continue
    result[group] = { ...before, [key]: value }
    origins.set(`${group}.${key}`, name)
  }
  const described = ISSUER_VARIABLES.filter((name) => given(name) !== undefined)
  if (file === undefined) result['issuers'] = [describeIssuer(given, origins)]
  else {
    for (const name of described) {
      const problem = `is set beside the file ${file}, which names the issuers itself.`
      problems.push({ source: name, path: '', problem, hint: 'Unset it, or run without a file.' })
    }
  }
  return { values: result, origins, problems }
}

function describeIssuer(given: (name: string) => string | undefined, origins: Map<string, string>): Values {
  const issuer: Values = {}
  const set = (key: string, name: (typeof ISSUER_VARIABLES)[number], value: unknown) => {
    origins.set(`issuers[0].${key}`, name)
    if (value !== undefined) issuer[key] = value
  }
  set('issuer', 'BEARWARD_ISSUER', given('BEARWARD_ISSUER'))
  const audiences = given('BEARWARD_AUDIENCE')?.split(/[,\s]+/)
  set(
    'audience',
    'BEARWARD_AUDIENCE',
    audiences?.filter((audience) => audience !== ''),
  )
  set('jwks_uri', 'BEARWARD_JWKS_URI', given('BEARWARD_JWKS_URI'))
  return issuer
}
