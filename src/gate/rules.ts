import { refusal } from '../errors.ts'
import { foldPath, type Target } from '../http/target.ts'

export type Access = 'public' | 'optional' | 'required'

/** A claim that must have one of the given values; an array claim must hold one of them. */
export interface RequiredClaim {
  /** Path of member names from the claims set inwards. */
  readonly path: readonly string[]
  readonly anyOf: readonly (string | number | boolean)[]
}

/** What requests of one kind need. */
export interface Rule {
  /** Label in logs and metrics. */
  readonly name: string
  /** `public`: the token is not looked at. `optional`: none is fine, a bad one is not. `required`: a valid one. */
  readonly access: Access
  readonly allScopes: readonly string[]
  /** At least one of these, unless the list is empty. */
  readonly anyScope: readonly string[]
  readonly claims: readonly RequiredClaim[]
  readonly roles?: Needed | undefined
  readonly permissions?: Needed | undefined
}

/** Names that a token must have. */
export interface Needed {
  /** Every one of these. */
  readonly all: readonly string[]
  /** At least one of these, unless the list is empty. */
  readonly any: readonly string[]
}

export interface RuleOptions extends Rule {
  /** Paths that match as a whole, written literally or percent-encoded. */
  readonly exact: readonly string[]
  /** Paths that match with everything below them: `/docs` matches `/docs` and `/docs/x`, not `/docsx`. */
  readonly prefix: readonly string[]
  /** Methods it is for; absent for all. */
  readonly methods: readonly string[] | undefined
}

/** What a request that no rule matches needs: a valid token. */
export const DEFAULT_RULE: Rule = {
  name: 'default',
  access: 'required',
  allScopes: [],
  anyScope: [],
  claims: [],
}

interface Entry {
  readonly rule: Rule
  readonly methods: ReadonlySet<string> | undefined
}

/** One reading of all configured paths. Look-up costs one probe per path segment, whatever the number of rules. */
class PathIndex {
  readonly #exact = new Map<string, Entry[]>()
  readonly #prefix = new Map<string, Entry[]>()
  #deepest = 0

  add(kind: 'exact' | 'prefix', path: string, entry: Entry): void {
    const map = kind === 'exact' ? this.#exact : this.#prefix
    const key = kind === 'prefix' && path === '/' ? '' : path
    const entries = map.get(key) ?? []
    entries.push(entry)
    map.set(key, entries)
    if (kind === 'prefix') this.#deepest = Math.max(this.#deepest, key.split('/').length - 1)
  }

  /** The most specific rule: an exact path before a prefix, a longer prefix before a shorter one. */
  find(path: string, method: string): Rule {
    const exact = pick(this.#exact.get(path), method)
    if (exact !== undefined) return exact
    let found = pick(this.#prefix.get(''), method) ?? DEFAULT_RULE
    // Walks the prefixes of the path from short to long, no deeper than any rule goes.
    for (let end = 0, depth = 0; end < path.length && depth < this.#deepest; depth += 1) {
      const slash = path.indexOf('/', end + 1)
      end = slash === -1 ? path.length : slash
      found = pick(this.#prefix.get(path.slice(0, end)), method) ?? found
    }
    return found
  }
}

/** HEAD falls under a rule for GET unless one for HEAD stands beside it: backends answer both from one handler. */
function pick(entries: readonly Entry[] | undefined, method: string): Rule | undefined {
  if (entries === undefined) return undefined
  const named = (wanted: string) => entries.find(({ methods }) => methods?.has(wanted))
  const entry = named(method) ?? (method === 'HEAD' ? named('GET') : undefined)
  return (entry ?? entries.find(({ methods }) => methods === undefined))?.rule
}

/** Finds the rule for a request. */
export type RuleMatcher = (target: Target, method: string) => Rule

/**
 * Compiles the rules. The order in which they are written means nothing: the most specific path wins.
 *
 * The rule is looked up once for every way in which a backend may read the path (decoded or not, with or without regard
 * to letter case and so on). When the readings fall under different rules, the request means one thing here and may mean
 * another there, and is refused.
 *
 * @param literalPaths - trust that the backend reads paths as they are written, and look rules up by that reading alone
 * @returns a matcher that throws Refusal `target_invalid` for a target that falls under several rules
 */
export function createRuleMatcher(options: readonly RuleOptions[], literalPaths: boolean): RuleMatcher {
  if (options.length === 0) return () => DEFAULT_RULE
  const literal = new PathIndex()
  const encoded = new PathIndex()
  const folded = new PathIndex()
  for (const { exact, prefix, methods, ...rule } of options) {
    const entry: Entry = { rule, methods: methods === undefined ? undefined : new Set(methods) }
    for (const [kind, paths] of [['exact', exact] as const, ['prefix', prefix] as const]) {
      for (const path of paths) {
        const decoded = decodeURIComponent(path)
        literal.add(kind, decoded, entry)
        encoded.add(kind, encodePath(decoded), entry)
        folded.add(kind, foldPath(decoded), entry)
      }
    }
  }
  return (target, method) => {
    const rule = literal.find(target.path, method)
    if (literalPaths) return rule
    if (folded.find(target.folded, method) !== rule) throw ambiguous(rule)
    if (target.encoded !== target.path && encoded.find(target.encoded, method) !== rule) throw ambiguous(rule)
    return rule
  }
}

/** As a careful caller writes the path: nothing escaped that need not be (RFC 3986 §3.3). */
function encodePath(path: string): string {
  return encodeURI(path).replaceAll('[', '%5B').replaceAll(']', '%5D')
}

function ambiguous(rule: Rule) {
  return refusal('target_invalid', {
    reason: 'falls under several rules, depending on how it is read',
    rule: rule.name,
  })
}
