import { readFileSync } from 'node:fs'
import { ConfigError } from '../errors.ts'
import type { SecretReference } from './fields.ts'

/** No secret is longer, and a reference to a device or a huge file must not fill the memory. */
const MAX_SECRET_BYTES = 64 * 1024

/**
 * Reads a secret from its file (without one line break at the end) or environment variable.
 *
 * @throws ConfigError when it cannot be read or is empty; names the place, never the value
 */
export function readSecret(reference: SecretReference, env: Readonly<Record<string, string | undefined>>): string {
  if ('env' in reference) {
    const value = env[reference.env]
    if (value === undefined || value === '') throw fault(reference.env, 'the environment variable is not set or empty.')
    return value
  }
  const value = readText(reference.file).replace(/\r?\n$/, '')
  if (value === '') throw fault(reference.file, 'the secret file is empty.')
  return value
}

/** A secret that strangers may try to guess has at least so many characters. */
const MIN_SHARED_LENGTH = 16

/**
 * Reads a secret that callers show.
 *
 * @throws ConfigError when it cannot be read, is empty, or could be guessed
 */
export function readSharedSecret(
  reference: SecretReference,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const value = readSecret(reference, env)
  if (value.length >= MIN_SHARED_LENGTH) return value
  const source = 'env' in reference ? reference.env : reference.file
  throw fault(source, `the secret has fewer than ${MIN_SHARED_LENGTH} characters: it could be guessed.`)
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file)
    if (bytes.length <= MAX_SECRET_BYTES) return bytes.toString('utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw fault(file, `the secret file cannot be read (${code}).`)
  }
  throw fault(file, 'the secret file is larger than 64 KiB.')
}

function fault(source: string, problem: string): ConfigError {
  return new ConfigError([{ source, path: '', problem }])
}
