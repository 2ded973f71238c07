import * as v from 'valibot'
import { ConfigError } from '../errors.ts'
import { readDocument } from './document.ts'
import type { Environment } from './env.ts'
import { address, type Address } from './address-fields.ts'
import { schema } from './schema.ts'

export interface OpsAddressOptions {
  /** An address that says it all. */
  readonly ops: string | undefined
  /** The configuration file of the sidecar. */
  readonly file: string | undefined
  readonly env: Environment
}

/** Where the ops listener of a running sidecar answers. */
export interface OpsAddress extends Address {
  /** Why the file did not decide, if there is one and it cannot be read. */
  readonly fallback: string | undefined
}

const ADDRESS = address('Where to ask.')

/**
 * Finds the ops listener of a sidecar that runs on this machine: from `ops`, else BEARWARD_OPS_LISTEN, else the file, else
 * the default. Of the file only `listen.ops` is looked at, and a file that cannot be read counts as one that says nothing:
 * the sidecar may run on the configuration before, and a probe that fails then would have it restarted with a bad one.
 *
 * @returns an address to connect to, so the loopback address in place of "all addresses"
 * @throws ConfigError when what decides is no address, or has port 0
 */
export function readOpsAddress({ ops, file, env }: OpsAddressOptions): OpsAddress {
  if (ops !== undefined) return parse(ops, '--ops', undefined)
  const variable = env['BEARWARD_OPS_LISTEN']
  if (variable !== undefined && variable !== '') return parse(variable, 'BEARWARD_OPS_LISTEN', undefined)
  const { value, fallback } = file === undefined ? {} : readFromFile(file)
  return parse(value ?? defaultAddress(), file ?? 'default', fallback)
}

function readFromFile(file: string): { value?: unknown; fallback?: string } {
  try {
    const { listen } = readDocument(file).values
    return typeof listen === 'object' && listen !== null ? { value: (listen as Record<string, unknown>)['ops'] } : {}
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { fallback: error.message }
  }
}

function defaultAddress(): string {
  return v.getDefault(schema.entries.listen.wrapped.entries.ops)
}

/** The addresses that mean "all", and what to connect to instead. */
const CONNECT_TO: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' }

function parse(value: unknown, source: string, fallback: string | undefined): OpsAddress {
  const result = v.safeParse(ADDRESS, value)
  const problem = result.success ? 'has port 0, which says nothing about where it listens.' : result.issues[0].message
  if (!result.success || result.output.port === 0) throw new ConfigError([{ source, path: '', problem }])
  const { host, port } = result.output
  return { host: CONNECT_TO[host] ?? host, port, fallback }
}
