import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import type { Config } from './schema.ts'

type RuleConfig = Config['rules'][number]

interface Place {
  readonly rule: RuleConfig
  readonly index: number
  readonly kind: 'exact' | 'prefix'
  readonly position: number
  /** Percent-decoded; as written when that is not possible. */
  readonly path: string
}

/** Checks each rule by itself. */
export function checkRules({ rules }: Pick<Config, 'rules'>): Fault[] {
  const pathFaults = rules.flatMap(placesOf).flatMap((place): Fault[] => {
    const problem = pathProblem(place)
    return problem === undefined ? [] : [{ path: pathOf(place), problem }]
  })
  return [...rules.flatMap((rule, i) => checkRule(rule, i, rules)), ...pathFaults]
}

function placesOf(rule: RuleConfig, index: number): Place[] {
  return (['exact', 'prefix'] as const).flatMap((kind) =>
    (rule[kind] ?? []).map((path, position) => ({ rule, index, kind, position, path: decode(path) })),
  )
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}

function pathOf({ index, kind, position }: Place): Path {
  return ['rules', index, kind, position]
}

function checkRule(rule: RuleConfig, i: number, rules: readonly RuleConfig[]): Fault[] {
  const faults: Fault[] = []
  const at: Path = ['rules', i]
  if (rule.name === 'default' || rule.name === 'none') {
    faults.push({ path: [...at, 'name'], problem: `"${rule.name}" has a meaning of its own in logs and metrics.` })
  }
  if (rules.findIndex(({ name }) => name === rule.name) < i) {
    faults.push({ path: [...at, 'name'], problem: `"${rule.name}" names another rule, too.` })
  }
  if (rule.exact === undefined && rule.prefix === undefined) {
    faults.push({ path: at, problem: 'needs paths: "exact" or "prefix".' })
  }
  return [...faults, ...checkAccess(rule, at)]
}

const NEEDS = ['scopes', 'roles', 'permissions', 'claims'] as const

function checkAccess(rule: RuleConfig, at: Path): Fault[] {
  const { access, prefix, insecure_catch_all: catchAll } = rule
  const faults: Fault[] = []
  if (access === 'public' && NEEDS.some((key) => rule[key] !== undefined)) {
    const problem = 'is public, so no token is looked at and scopes or claims would never be checked.'
    faults.push({ path: at, problem, hint: 'Use access: required.' })
  }
  if (access !== 'required' && prefix?.includes('/') === true && !catchAll) {
    const problem = `opens every path that no other rule names (access: ${access}).`
    faults.push({ path: at, problem, hint: 'Name the paths, or set insecure_catch_all: true.' })
  }
  return faults
}

function pathProblem({ path, kind, position, rule }: Place): string | undefined {
  const written = rule[kind]?.[position] ?? ''
  if (!path.startsWith('/')) return 'must begin with "/".'
  if (!path.isWellFormed()) return 'is not Unicode text.'
  if (/[?#;\\\x00-\x1f\x7f]/.test(path) || path.includes('//')) {
    return 'holds "?", "#", ";", "\\", "//" or a control character, which no accepted request target has.'
  }
  if (/\/\.{1,2}(\/|$)/.test(path)) return 'holds a dot segment, which no accepted request target has.'
  return escapeProblem(path, written) ?? slashProblem(path)
}

function escapeProblem(path: string, written: string): string | undefined {
  if (/%(?![0-9a-fA-F]{2})/.test(written) || /%(2[eEfF]|25[0-9a-fA-F]{2})/.test(written)) {
    return 'holds an escape that no accepted request target has.'
  }
  // Such an escape was left as it is, because it cannot be decoded.
  return /%[0-9a-fA-F]{2}/.test(path) ? 'holds an escape that is not UTF-8.' : undefined
}

function slashProblem(path: string): string | undefined {
  if (path.length === 1 || !path.endsWith('/')) return undefined
  return `must be written without the slash at the end: ${path.slice(0, -1)}.`
}

type Target = { readonly target: Partial<Config['target']> }

/** Two rules for the same requests, or for paths that many backends cannot tell apart unless `target` vouches for it. */
export function checkOverlaps({ rules, target }: Pick<Config, 'rules'> & Target): Fault[] {
  const seen = new Map<string, Place[]>()
  const wellFormed = rules.flatMap(placesOf).filter((place) => pathProblem(place) === undefined)
  return wellFormed.flatMap((place): Fault[] => {
    const key = target.insecure_literal_paths === false ? place.path.toLowerCase() : place.path
    const others = seen.get(key) ?? []
    seen.set(key, [...others, place])
    const same = others.find(
      ({ kind, path, rule }) => kind === place.kind && path === place.path && shareMethods(rule, place.rule),
    )
    if (same !== undefined) {
      const problem = `is in ${same.kind} of rule "${same.rule.name}", too, for the same methods.`
      return [{ path: pathOf(place), problem, other: pathOf(same) }]
    }
    // One rule may hold both: it is found whichever of them a backend reads.
    const alike = others.find((other) => other.path !== place.path && other.index !== place.index)
    if (alike === undefined) return []
    const problem = `differs from "${alike.path}" of rule "${alike.rule.name}" by letter case alone, which many backends ignore.`
    const hint = 'If yours does not, set target.insecure_literal_paths: true.'
    return [{ path: pathOf(place), problem, other: pathOf(alike), hint }]
  })
}

function shareMethods(one: RuleConfig, other: RuleConfig): boolean {
  if (one.methods === undefined || other.methods === undefined) return one.methods === other.methods
  return one.methods.some((method) => other.methods?.includes(method) === true)
}
