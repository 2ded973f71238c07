import { dirname, resolve } from 'node:path'
import type { Groups } from './parse.ts'
import type { Config, ParsedConfig } from './schema.ts'

/** The settings that name files, by group; relative ones are meant from the folder of the configuration. */
export const FILES = {
  issuers: ['jwks_file', 'jwks_seed_file', 'jwks_bearer_token_file', 'ca_file'],
  upstream: ['ca_file', 'certificate_file', 'key_file'],
  tls: ['certificate_file', 'key_file', 'client_ca_file'],
  clients: ['key_file', 'certificate_file'],
  redis: ['ca_file', 'certificate_file', 'key_file'],
} as const

/**
 * Fills in what depends on other settings, and makes paths absolute.
 *
 * @param file - name of the configuration file; without one, paths are meant from the working directory
 */
export function complete(parsed: Groups, file: string | undefined): object {
  const base = file === undefined ? '.' : dirname(file)
  const { issuers, identity, helper, upstream, listen } = parsed
  return {
    ...parsed,
    ...(issuers && { issuers: issuers.map((issuer) => completeIssuer(issuer, base)) }),
    ...(upstream && { upstream: withAbsolute(upstream, FILES.upstream, base) }),
    ...(listen?.tls && { listen: { ...listen, tls: withAbsolute(listen.tls, FILES.tls, base) } }),
    ...(identity?.headers && { identity: { ...identity, headers: identity.headers.map(inLowerCase) } }),
    ...(helper && { helper: completeHelper(helper, base) }),
  }
}

type Helper = ParsedConfig['helper']
type Clients = Helper['clients']

function completeHelper(helper: Partial<Helper>, base: string): Partial<Helper> {
  const { clients, callers, store, sealing } = helper
  return {
    ...helper,
    ...(clients && { clients: withAbsoluteFiles(clients, base) }),
    ...(callers && { callers: withAbsoluteSecrets(callers, base) }),
    ...(store?.redis && { store: { ...store, redis: completeRedis(store.redis, base) } }),
    ...(sealing?.key_files && {
      sealing: { ...sealing, key_files: sealing.key_files.map((file) => resolve(base, file)) },
    }),
  }
}

function completeRedis(redis: NonNullable<Helper['store']>['redis'], base: string) {
  const { password } = redis
  const isFile = password !== undefined && 'file' in password
  return {
    ...withAbsolute(redis, FILES.redis, base),
    ...(isFile && { password: { file: resolve(base, password.file) } }),
  }
}

function withAbsoluteFiles(clients: Clients, base: string): Clients {
  return Object.fromEntries(
    Object.entries(clients).map(([name, written]) => {
      const client = withAbsolute(written, FILES.clients, base)
      const { client_secret: secret } = client
      if (secret === undefined || !('file' in secret)) return [name, client]
      return [name, { ...client, client_secret: { file: resolve(base, secret.file) } }]
    }),
  )
}

function withAbsoluteSecrets(callers: Helper['callers'], base: string): Helper['callers'] {
  return Object.fromEntries(
    Object.entries(callers).map(([name, caller]) => {
      const { shared_secret: secret } = caller
      if (secret === undefined || !('file' in secret)) return [name, caller]
      return [name, { ...caller, shared_secret: { file: resolve(base, secret.file) } }]
    }),
  )
}

function inLowerCase<T extends { readonly header: string }>(header: T): T {
  return { ...header, header: header.header.toLowerCase() }
}

function completeIssuer(issuer: ParsedConfig['issuers'][number], base: string): Config['issuers'][number] {
  return { ...withAbsolute(issuer, FILES.issuers, base), name: issuer.name ?? nameOf(issuer.issuer) }
}

/** The group with those of its settings that name files resolved against a folder. */
function withAbsolute<T extends object>(group: T, keys: readonly (keyof T)[], base: string): T {
  const files = keys.flatMap((key) => (group[key] === undefined ? [] : [[key, resolve(base, String(group[key]))]]))
  return { ...group, ...(Object.fromEntries(files) as Partial<T>) }
}

/** The host of an issuer as a name, or the issuer itself as far as a name can hold it. */
function nameOf(issuer: string): string {
  const text = URL.canParse(issuer) ? new URL(issuer).host : issuer
  const name = text
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
  return name === '' ? 'issuer' : name.slice(0, 63)
}
