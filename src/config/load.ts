import { dirname, resolve } from 'node:path'
import { ConfigError, type Problem } from '../errors.ts'
import { checkConfig, type Fault } from './check.ts'
import { readDocument, type ConfigDocument, type Path } from './document.ts'
import { applyEnvironment, type Environment } from './env.ts'
import { fillPreset } from './presets.ts'
import { isSetting, parseGroups } from './parse.ts'
import type { Config, ParsedConfig } from './schema.ts'

export interface LoadOptions {
  /** The YAML file; without one, the environment alone is read. */
  readonly file?: string
  readonly env: Environment
}

export interface LoadedConfig {
  readonly config: Config
  /** Adds source and line to what is found wrong with a setting later. */
  readonly locate: (fault: Fault) => Problem
}

/** A file with more problems than this has one problem: it is not a configuration. */
const MAX_PROBLEMS = 50

/**
 * Loads the configuration: file, environment over it, defaults, checks within and across settings.
 *
 * @returns the deeply frozen configuration; relative paths in it are resolved against the file's directory
 * @throws ConfigError with every problem at once, in the order of the file
 */
export function loadConfig(options: LoadOptions): Config {
  return loadConfigWithPlaces(options).config
}

/** Like {@link loadConfig}, for checks that go on where this one ends. */
export function loadConfigWithPlaces({ file, env }: LoadOptions): LoadedConfig {
  const document = file === undefined ? undefined : readDocument(file)
  const { values, origins, problems } = applyEnvironment(spellOut(document?.values), env, file)
  const locate = createLocator(document, file, origins)

  const { groups, faults } = parseGroups(withPresets(values))
  const config = complete(groups, file)
  const empty = (document?.empty ?? [])
    .filter(isSetting)
    .map((path) => ({ path, problem: 'is empty: give it a value, or remove it.' }))
  const isEmpty = new Set(empty.map(({ path }) => pathText(path)))
  const all = [
    ...problems,
    ...[...empty, ...faults.filter(({ path }) => !isEmpty.has(pathText(path))), ...checkConfig(config)].map(locate),
  ]
  if (all.length > 0) throw new ConfigError(inOrder(all))
  return { config: deepFreeze(config as Config), locate }
}

function createLocator(
  document: ConfigDocument | undefined,
  file: string | undefined,
  origins: ReadonlyMap<string, string>,
): (fault: Fault) => Problem {
  return ({ path, problem, hint, other }) => {
    const text = pathText(path)
    const variable = origins.get(text)
    if (variable !== undefined) return { source: variable, path: '', problem, hint }
    if (file === undefined) return { source: 'environment', path: text, problem, hint: hint ?? hintAt(text) }
    const where = other === undefined ? '' : ` (See line ${document?.lineOf(other)}.)`
    return { source: file, line: document?.lineOf(path), path: text, problem: problem + where, hint }
  }
}

function inOrder(problems: readonly Problem[]): Problem[] {
  const sorted = [...problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
  const rest = sorted.length - MAX_PROBLEMS
  if (rest <= 0) return sorted
  const last: Problem = { source: sorted[0]?.source ?? '', path: '', problem: `${rest} more problems are not shown.` }
  return [...sorted.slice(0, MAX_PROBLEMS), last]
}

/** The upstream may be written as its URL alone. */
function spellOut(values: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  return typeof values?.['upstream'] === 'string' ? { ...values, upstream: { url: values['upstream'] } } : values
}

function withPresets(values: Record<string, unknown>): Record<string, unknown> {
  const { issuers } = values
  return Array.isArray(issuers) ? { ...values, issuers: issuers.map(fillPreset) } : values
}

function hintAt(path: string): string | undefined {
  return path.startsWith('upstream') ? 'Set BEARWARD_UPSTREAM, or name a file with --config.' : undefined
}

/** Such as `issuers[0].audience`. */
function pathText(path: Path): string {
  return path.map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? key : `.${key}`)).join('')
}

/** Fills in what depends on other settings, and makes paths absolute. */
function complete(parsed: Partial<ParsedConfig>, file: string | undefined): Partial<Config> {
  const base = file === undefined ? '.' : dirname(file)
  const { issuers, identity, helper, upstream, listen, ...rest } = parsed
  return {
    ...rest,
    ...(upstream && { upstream: withAbsolute(upstream, ['ca_file', 'certificate_file', 'key_file'], base) }),
    ...(listen && {
      listen: listen.tls === undefined ? listen : { ...listen, tls: withAbsolute(listen.tls, LISTEN_FILES, base) },
    }),
    ...(issuers && { issuers: issuers.map((issuer) => completeIssuer(issuer, base)) }),
    ...(identity && {
      identity: {
        ...identity,
        headers: identity.headers.map((header) => ({ ...header, header: header.header.toLowerCase() })),
      },
    }),
    ...(helper && {
      helper: {
        ...helper,
        clients: Object.fromEntries(
          Object.entries(helper.clients).map(([name, client]) => [name, withAbsoluteSecret(client, base)]),
        ),
      },
    }),
  }
}

const LISTEN_FILES = ['certificate_file', 'key_file', 'client_ca_file'] as const

/** The group with those of its settings that name files resolved against a folder. */
function withAbsolute<T extends object>(group: T, keys: readonly (keyof T)[], base: string): T {
  const files = keys.flatMap((key) => (group[key] === undefined ? [] : [[key, resolve(base, String(group[key]))]]))
  return { ...group, ...(Object.fromEntries(files) as Partial<T>) }
}

function completeIssuer(issuer: ParsedConfig['issuers'][number], base: string): Config['issuers'][number] {
  return {
    ...issuer,
    ...withAbsoluteFiles(issuer, base),
    name: issuer.name ?? nameOf(issuer.issuer),
  }
}

const ISSUER_FILES = ['jwks_file', 'jwks_seed_file', 'jwks_bearer_token_file', 'ca_file'] as const

function withAbsoluteFiles(issuer: ParsedConfig['issuers'][number], base: string) {
  return Object.fromEntries(
    ISSUER_FILES.flatMap((key) => {
      const file = issuer[key]
      return file === undefined ? [] : [[key, resolve(base, file)]]
    }),
  ) as Partial<Record<(typeof ISSUER_FILES)[number], string>>
}

type Client = ParsedConfig['helper']['clients'][string]

function withAbsoluteSecret(client: Client, base: string): Client {
  const { client_secret: secret } = client
  return secret !== undefined && 'file' in secret
    ? { ...client, client_secret: { file: resolve(base, secret.file) } }
    : client
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

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze)
    Object.freeze(value)
  }
  return value
}
