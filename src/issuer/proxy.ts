import { ConfigError } from '../errors.ts'

/** A proxy between this process and issuers. */
export interface Proxy {
  /** An http or https URL; may hold a user name and password. */
  readonly url: string
  /** Hosts that are reached without it, separated by commas. */
  readonly bypass: string
}

/** What is on this machine is never reached through a proxy. */
const LOOPBACK = 'localhost,127.0.0.1,::1'

/**
 * Reads the proxy from the variables that other programs follow, too: `HTTPS_PROXY` and `NO_PROXY`, in lower case first.
 *
 * @throws ConfigError when it is no http or https URL; never names the value, which may hold a password
 */
export function readProxy(env: Readonly<Record<string, string | undefined>>): Proxy | undefined {
  const variable = ['https_proxy', 'HTTPS_PROXY'].find((name) => env[name] !== undefined && env[name] !== '')
  if (variable === undefined) return undefined
  const url = env[variable] as string
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new ConfigError([{ source: variable, path: '', problem: 'must be the http or https URL of a proxy.' }])
  }
  const exceptions = env['no_proxy'] ?? env['NO_PROXY'] ?? ''
  return { url, bypass: `${LOOPBACK},${exceptions}` }
}
