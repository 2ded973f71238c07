import * as v from 'valibot'
import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { nearest } from './nearest.ts'
import { schema, type ParsedConfig } from './schema.ts'

/** What the schema makes of the values of a file. */
export interface Parsed {
  /** The groups that could be parsed; the others have faults. */
  readonly groups: Partial<ParsedConfig>
  readonly faults: readonly Fault[]
}

/** Parses each group of settings by itself, so that a fault in one does not hide those of another. */
export function parseGroups(values: Readonly<Record<string, unknown>>): Parsed {
  const faults = findMisplaced(values, schema, [])
  const groups: Record<string, unknown> = {}
  for (const [name, group] of Object.entries(schema.entries)) {
    if (!(name in values) && group.type !== 'optional') {
      faults.push({ path: [name], problem: missingText([name]) })
      continue
    }
    const result = v.safeParse(group, values[name])
    if (result.success) groups[name] = result.output
    else faults.push(...result.issues.map((issue) => toFault(issue, name)))
  }
  return { groups, faults: onePerPlace(faults) }
}

/** The members of valibot's schemas that lead from one to the next. */
export interface Described {
  readonly type: string
  readonly entries?: Readonly<Record<string, Described>>
  readonly wrapped?: Described
  readonly item?: Described
  readonly value?: Described
}

/** Whether a setting or group can stand at a path. What is inside a single value, such as a reference to a secret, cannot. */
export function isSetting(path: Path): boolean {
  let at: Described | undefined = schema
  for (const key of path) {
    at = memberOf(at, key)
    if (at === undefined) return false
  }
  return true
}

function memberOf({ entries, item, value }: Described, key: string | number): Described | undefined {
  const member = entries === undefined ? (item ?? value) : entries[key]
  return member?.wrapped ?? member
}

/** Keys that no group knows, lists where groups belong, and names that JavaScript keeps for itself. */
function findMisplaced(value: unknown, described: Described, path: Path): Fault[] {
  const { entries, item, value: member, wrapped } = described
  if (wrapped !== undefined) return findMisplaced(value, wrapped, path)
  if (typeof value !== 'object' || value === null) return []
  if (Array.isArray(value)) {
    if (entries !== undefined || member !== undefined) return [{ path, problem: 'must be a group of settings.' }]
    return item === undefined ? [] : value.flatMap((one, i) => findMisplaced(one, item, [...path, i]))
  }
  return Object.entries(value).flatMap(([key, one]): Fault[] => {
    const place = [...path, key]
    if (entries !== undefined) {
      const known = Object.hasOwn(entries, key) ? entries[key] : undefined
      return known === undefined ? [unknownKey(place, Object.keys(entries))] : findMisplaced(one, known, place)
    }
    if (member === undefined) return []
    if (RESERVED.has(key)) return [{ path: place, problem: `cannot be named "${key}": choose another name.` }]
    return findMisplaced(one, member, place)
  })
}

const RESERVED = new Set(['__proto__', 'constructor', 'prototype'])

function unknownKey(path: Path, siblings: readonly string[]): Fault {
  const near = nearest(String(path.at(-1)), siblings)
  const hint = near === undefined ? `Known here: ${siblings.join(', ')}.` : `Did you mean "${near}"?`
  return { path, problem: 'is not a setting.', hint }
}

function toFault(issue: v.InferIssue<typeof schema>, group: string): Fault {
  const path: Path = [group, ...(issue.path ?? []).map(({ key }) => key as string | number)]
  if (issue.type === 'strict_object' && issue.received === 'undefined') return { path, problem: missingText(path) }
  if (issue.type === 'strict_object' || issue.type === 'record') {
    return { path, problem: 'must be a group of settings.' }
  }
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

/** One complaint per place is enough: the first. */
function onePerPlace(faults: readonly Fault[]): Fault[] {
  const seen = new Set<string>()
  return faults.filter(({ path }) => {
    const key = JSON.stringify(path)
    if (seen.has(key)) return false
    seen.add(key)
    return true
  })
}
