import { dirname, resolve } from 'node:path'
import * as v from 'valibot'
import { ConfigError, type Problem } from '../errors.ts'
import { checkConfig, type Fault } from './check.ts'
import { readDocument, type Path } from './document.ts'
import { applyEnvironment, type Environment } from './env.ts'
import { nearest } from './nearest.ts'
import { schema, type Config, type ParsedConfig } from './schema.ts'

export interface LoadOptions {
  /** The YAML file; without one, the environment alone is read. */
  readonly file?: string
  readonly env: Environment
}

/**
 * Loads the configuration: file, environment over it, defaults, checks within and across settings.
 *
 * @returns the deeply frozen configuration; relative paths in it are resolved against the file's directory
 * @throws ConfigError with every problem at once
 */
export function loadConfig({ file, env }: LoadOptions): Config {
  const document = file === undefined ? undefined : readDocument(file)
  const { values, origins, problems } = applyEnvironment(spellOut(document?.values), env, file)

  const locate = ({ path, problem, hint }: Fault): Problem => {
    const text = pathText(path)
    const variable = origins.get(text)
    if (variable !== undefined) return { source: variable, path: '', problem, hint }
    if (file === undefined) return { source: 'environment', path: text, problem, hint: hint ?? hintAt(text) }
    return { source: file, line: document?.lineOf(path), path: text, problem, hint }
  }

  const result = v.safeParse(schema, values)
  if (!result.success) throw new ConfigError([...problems, ...dedupe(result.issues.map(toFault)).map(locate)])
  const config = complete(result.output, file)
  const faults = checkConfig(config)
  if (problems.length + faults.length > 0) throw new ConfigError([...problems, ...faults.map(locate)])
  return deepFreeze(config)
}

/** The upstream may be written as its URL alone. */
function spellOut(values: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  return typeof values?.['upstream'] === 'string' ? { ...values, upstream: { url: values['upstream'] } } : values
}

function hintAt(path: string): string | undefined {
  return path.startsWith('upstream') ? 'Set BEARWARD_UPSTREAM, or name a file with --config.' : undefined
}

type Issue = v.InferIssue<typeof schema>

function toFault(issue: Issue): Fault {
  const path: Path = (issue.path ?? []).map(({ key }) => key as string | number)
  const name = String(path.at(-1))
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    const siblings = entriesAt(path.slice(0, -1))
    const near = nearest(name, siblings)
    const hint = near === undefined ? `Known here: ${siblings.join(', ')}.` : `Did you mean "${near}"?`
    return { path, problem: 'is not a setting.', hint }
  }
  if (issue.type === 'strict_object' && issue.received === 'undefined') return { path, problem: missingText(path) }
  if (issue.type === 'strict_object' || issue.type === 'record')
    return { path, problem: 'must be a group of settings.' }
  if (issue.type === 'array') return { path, problem: 'must be a list.' }
  return { path, problem: issue.message }
}

function missingText(path: Path): string {
  const texts: Record<string, string> = {
    issuers: 'is missing: name the authorization server whose tokens are accepted, as issuer and audience.',
    upstream: 'is missing: name the backend, such as http://127.0.0.1:3000.',
    audience: 'is missing: without it, a token for any other API of the issuer would be accepted here.',
  }
  return texts[String(path.at(-1))] ?? 'is missing.'
}

interface Described {
  readonly type: string
  readonly entries?: Record<string, Described>
  readonly wrapped?: Described
  readonly item?: Described
  readonly value?: Described
}

/** The keys that the schema knows at a path. */
function entriesAt(path: Path): string[] {
  let at: Described = schema
  for (const key of ['', ...path]) {
    const next = key === '' ? at : (at.entries?.[key] ?? at.item ?? at.value)
    if (next === undefined) return []
    at = next.wrapped ?? next
  }
  return Object.keys(at.entries ?? {})
}

/** One complaint per place is enough. */
function dedupe(faults: readonly Fault[]): Fault[] {
  return [...new Map(faults.map((fault) => [pathText(fault.path), fault])).values()]
}

/** Such as `issuers[0].audience`. */
function pathText(path: Path): string {
  return path.map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? key : `.${key}`)).join('')
}

/** Fills in what depends on other settings, and makes paths absolute. */
function complete(parsed: ParsedConfig, file: string | undefined): Config {
  const base = file === undefined ? '.' : dirname(file)
  return {
    ...parsed,
    issuers: parsed.issuers.map((issuer) => ({
      ...issuer,
      ...withAbsoluteFiles(issuer, base),
      name: issuer.name ?? nameOf(issuer.issuer),
    })),
    identity: {
      ...parsed.identity,
      headers: parsed.identity.headers.map((header) => ({ ...header, header: header.header.toLowerCase() })),
    },
    helper: {
      ...parsed.helper,
      clients: Object.fromEntries(
        Object.entries(parsed.helper.clients).map(([name, client]) => [name, withAbsoluteSecret(client, base)]),
      ),
    },
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
