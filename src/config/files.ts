import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { ConfigError, type Problem } from '../errors.ts'
import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import type { Environment } from './env.ts'
import type { LoadedConfig } from './load.ts'
import type { Config } from './schema.ts'
import { readSecret } from './secrets.ts'

/**
 * The files that a configuration names, as absolute paths: every text under a key that is `file` or ends in `_file`,
 * which is how such settings are called.
 */
export function referencedFiles(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) =>
    typeof member === 'string' && isFileKey(key) ? [member] : referencedFiles(member),
  )
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

/**
 * Reads the files that a configuration cannot work without.
 *
 * @throws ConfigError with every one that cannot be used, at the place of the setting that names it
 */
export function checkFiles({ config, locate }: LoadedConfig, env: Environment): void {
  const problems: Problem[] = checkCertificates(config).map(locate)
  config.issuers.forEach(({ jwks_file: file }, i) => {
    const reason = file === undefined ? undefined : whyUnreadable(file)
    const problem = `names a file that cannot be read: ${file} (${reason}).`
    if (reason !== undefined) problems.push(locate({ path: ['issuers', i, 'jwks_file'], problem }))
  })
  for (const [name, { client_secret: secret }] of Object.entries(config.helper.clients)) {
    try {
      if (secret !== undefined) readSecret(secret, env)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const path = ['helper', 'clients', name, 'client_secret']
      problems.push(...error.problems.map(({ source, problem }) => locate({ path, problem: `${source}: ${problem}` })))
    }
  }
  if (problems.length > 0) throw new ConfigError(problems)
}

/** Certificates with their keys, and authorities: what cannot make up a TLS context would fail every connection. */
function checkCertificates({ listen: { tls }, upstream }: Config): Fault[] {
  return [
    ...(tls === undefined ? [] : checkContext(['listen', 'tls'], tls, tls.client_ca_file)),
    ...checkContext(['upstream'], upstream, upstream.ca_file),
  ]
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

function whyUnreadable(file: string): string | undefined {
  try {
    readFileSync(file)
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}
