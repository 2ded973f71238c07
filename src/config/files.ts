import { createPrivateKey, hash, type JsonWebKey } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { ConfigError, type Problem } from '../errors.ts'
import { holdsCertificates } from '../util/certificates.ts'
import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import type { Environment } from './env.ts'
import type { SecretReference } from './fields.ts'
import { FILES } from './complete.ts'
import { inOrder, type LoadedConfig } from './load.ts'
import type { Config } from './schema.ts'
import { readSealingKey } from './sealing-keys.ts'
import { readSecret, readSharedSecret } from './secrets.ts'

/**
 * The files that a configuration names, as absolute paths: every text under a key that is `file` or ends in `_file`, and
 * every one of a list under a key that ends in `_files`, which is how such settings are called.
 */
export function referencedFiles(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    if (typeof member === 'string' && isFileKey(key)) return [member]
    return key.endsWith('_files') && Array.isArray(member) ? (member as string[]) : referencedFiles(member)
  })
}

function isFileKey(key: string): boolean {
  return key === 'file' || key.endsWith('_file')
}

/** What is in each of several files, as a digest; of one that cannot be read, the reason. */
export function digestFiles(files: readonly string[]): ReadonlyMap<string, string> {
  return new Map(files.map((file) => [file, digestFile(file)]))
}

function digestFile(file: string): string {
  try {
    return hash('sha256', readFileSync(file), 'base64')
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}

/** Every setting that names a file, with the file. */
export function filesOf({ issuers, upstream, listen, helper }: Config): { path: Path; file: string }[] {
  const named = <T extends object>(group: T | undefined, keys: readonly (keyof T & string)[], at: Path) =>
    keys.flatMap((key) => {
      const file = group?.[key]
      return typeof file === 'string' ? [{ path: [...at, key], file }] : []
    })
  return [
    ...issuers.flatMap((issuer, i) => named(issuer, FILES.issuers, ['issuers', i])),
    ...named(upstream, FILES.upstream, ['upstream']),
    ...named(listen.tls, FILES.tls, ['listen', 'tls']),
    ...Object.entries(helper.clients).flatMap(([name, client]) =>
      named(client, FILES.clients, ['helper', 'clients', name]),
    ),
    ...named(helper.store?.redis, FILES.redis, ['helper', 'store', 'redis']),
  ]
}

/** Every setting that says where a secret is, with what reads it. */
function secretsOf({ helper }: Config, env: Environment): { path: Path; read: () => unknown }[] {
  const at = (path: Path, reference: SecretReference | undefined) =>
    reference === undefined ? [] : [{ path, read: () => readSecret(reference, env) }]
  return [
    ...Object.entries(helper.clients).flatMap(([name, { client_secret: secret }]) =>
      at(['helper', 'clients', name, 'client_secret'], secret),
    ),
    ...Object.entries(helper.callers).flatMap(([name, { shared_secret: secret }]) =>
      secret === undefined
        ? []
        : [{ path: ['helper', 'callers', name, 'shared_secret'], read: () => readSharedSecret(secret, env) }],
    ),
    ...at(['helper', 'store', 'redis', 'password'], helper.store?.redis.password),
    ...(helper.sealing?.key_files ?? []).map((file, i) => ({
      path: ['helper', 'sealing', 'key_files', i],
      read: () => readSealingKey(file),
    })),
  ]
}

/** Mounted by Kubernetes alone, and so missing wherever else a configuration is checked. */
const IN_POD = '/var/run/secrets/kubernetes.io/serviceaccount/'

/** Whether a file is in pods alone, and this is none. */
export function isElsewhere({ file }: { readonly file: string }): boolean {
  return file.startsWith(IN_POD) && !existsSync(IN_POD)
}

/**
 * Reads the files that a configuration names, but for those that are elsewhere.
 *
 * @throws ConfigError with every one that cannot be used, at the place of the setting that names it
 */
export function checkFiles({ config, locate }: LoadedConfig, env: Environment): void {
  const problems: Problem[] = []
  for (const { path, file } of filesOf(config).filter((one) => !isElsewhere(one))) {
    const reason = whyUnreadable(file)
    const problem = `names a file that cannot be read: ${file} (${reason}).`
    if (reason !== undefined) problems.push(locate({ path, problem }))
  }
  if (problems.length === 0) problems.push(...checkCertificates(config).map(locate))
  for (const { path, read } of secretsOf(config, env)) {
    try {
      read()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      problems.push(...error.problems.map(({ source, problem }) => locate({ path, problem: `${source}: ${problem}` })))
    }
  }
  if (problems.length > 0) throw new ConfigError(inOrder(problems))
}

/** Certificates with their keys, and authorities: what cannot make up a TLS context would fail every connection. */
function checkCertificates(config: Config): Fault[] {
  const {
    listen: { tls },
    upstream,
    helper,
  } = config
  const redis = helper.store?.redis
  return [
    ...filesOf(config).filter(isBundle).flatMap(checkAuthorities),
    ...(redis === undefined ? [] : checkContext(['helper', 'store', 'redis'], redis, redis.ca_file)),
    ...Object.entries(helper.clients).flatMap(([name, client]) =>
      client.client_authentication === 'private_key_jwt'
        ? checkPrivateKey(['helper', 'clients', name, 'key_file'], client.key_file)
        : checkContext(['helper', 'clients', name], client, undefined),
    ),
    ...(tls === undefined ? [] : checkContext(['listen', 'tls'], tls, tls.client_ca_file)),
    ...checkContext(['upstream'], upstream, upstream.ca_file),
  ]
}

function isBundle({ path, file }: { readonly path: Path; readonly file: string }): boolean {
  return String(path.at(-1)).endsWith('ca_file') && !isElsewhere({ file })
}

function checkAuthorities({ path, file }: { readonly path: Path; readonly file: string }): Fault[] {
  if (holdsCertificates(readFileSync(file, 'utf8'))) return []
  return [{ path, problem: `names a file without whole certificates (PEM): ${file}.` }]
}

interface Pair {
  readonly certificate_file?: string | undefined
  readonly key_file?: string | undefined
}

function checkContext(path: Path, { certificate_file: cert, key_file: key }: Pair, ca: string | undefined): Fault[] {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file, 'utf8'))
  try {
    createSecureContext({ cert: read(cert), key: read(key), ca: read(ca) })
    return []
  } catch (error) {
    const { code = 'unknown', path: file } = error as NodeJS.ErrnoException
    const problem =
      file === undefined ? `these files make up no TLS context (${code}).` : `${file} cannot be read (${code}).`
    return [{ path, problem }]
  }
}

function checkPrivateKey(path: Path, file = ''): Fault[] {
  try {
    const text = readFileSync(file, 'utf8')
    if (!text.trimStart().startsWith('{')) createPrivateKey(text)
    else createPrivateKey({ key: JSON.parse(text) as JsonWebKey, format: 'jwk' })
    return []
  } catch {
    // The messages of the library could quote the key.
    return [{ path, problem: `names a file that holds no private key in PEM or JWK form: ${file}.` }]
  }
}

function whyUnreadable(file: string): string | undefined {
  try {
    return readFileSync(file).length === 0 ? 'empty' : undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}
