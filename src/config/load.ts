import { ConfigError, type Problem } from '../errors.ts'
import { checkConfig, type Fault } from './check.ts'
import { complete } from './complete.ts'
import { readDocument, type ConfigDocument, type Path } from './document.ts'
import { applyEnvironment, type Environment } from './env.ts'
import { fillPreset } from './presets.ts'
import { parseGroups } from './parse.ts'
import type { Config } from './schema.ts'

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

  const { groups, faults, inFile } = parseGroups(withPresets(values))
  const config = complete(groups, file)
  const isWhole = (setting: string) =>
    faults.every(({ path }) => {
      const text = pathText(path)
      return !text.startsWith(setting) || /^[^.[]/.test(text.slice(setting.length))
    })
  const found = checkConfig(config, isWhole).map(({ path, other, ...fault }) => ({
    ...fault,
    path: inFile(path),
    ...(other && { other: inFile(other) }),
  }))
  const all = [...problems, ...[...faults, ...found].map(locate)]
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

/** In the order of the file; what has no line comes first. */
export function inOrder(problems: readonly Problem[]): Problem[] {
  return [...problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
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

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze)
    Object.freeze(value)
  }
  return value
}
