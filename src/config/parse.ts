import * as v from 'valibot'
import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { nearest } from './nearest.ts'
import { schema, type ParsedConfig } from './schema.ts'

/** The settings that could be parsed. Entries of a list are left out whole when there is a fault in them. */
export type Groups = {
  readonly [G in keyof ParsedConfig]?: ParsedConfig[G] extends readonly unknown[]
    ? ParsedConfig[G]
    : Partial<ParsedConfig[G]>
}

/** What the schema makes of the values of a file. */
export interface Parsed {
  readonly groups: Groups
  readonly faults: readonly Fault[]
  /** Where a setting of `groups` stands in the file: further down, when entries before it were left out. */
  readonly inFile: (path: Path) => Path
}

/** Parses each setting by itself where need be, so that a fault in one does not hide those of another. */
export function parseGroups(values: Readonly<Record<string, unknown>>): Parsed {
  const misplaced = findMisplaced(values, schema, [])
  const faults = [...misplaced]
  const groups: Record<string, unknown> = {}
  const kept: Kept = new Map()
  for (const [name, group] of Object.entries(schema.entries)) {
    if (!Object.hasOwn(values, name) && group.type !== 'optional') {
      faults.push({ path: [name], problem: missingText([name]) })
      continue
    }
    const result = v.safeParse(group, values[name])
    groups[name] = result.success ? result.output : salvage(group, values[name], [name], kept)
    if (!result.success) faults.push(...result.issues.map((issue) => toFault(issue, name)))
  }
  const inFile = (path: Path): Path =>
    path.map((key, i) => (typeof key === 'number' ? (kept.get(textOf(path.slice(0, i)))?.[key] ?? key) : key))
  return { groups, faults: onePerPlace(faults), inFile }
}

/** The members of valibot's schemas that lead from one to the next. */
export interface Described {
  readonly type: string
  readonly entries?: Readonly<Record<string, Described>>
  readonly wrapped?: Described
  readonly item?: Described
  readonly value?: Described
}

/** Of each list that lost entries, the positions in the file of those that are left. */
type Kept = Map<string, readonly number[]>

const textOf = (path: Path) => JSON.stringify(path)

/** What can be parsed of a value that as a whole cannot; `undefined` for nothing. */
function salvage(described: Described, value: unknown, path: Path, kept: Kept): unknown {
  const result = v.safeParse(described as v.GenericSchema, value)
  if (result.success) return result.output
  const { entries, item, value: member } = described.wrapped ?? described
  if (typeof value !== 'object' || value === null) return undefined
  if (Array.isArray(value)) {
    if (item === undefined) return undefined
    const whole = [...value.entries()].flatMap(([i, one]) => parseWhole(item, one, i))
    kept.set(
      textOf(path),
      whole.map(([i]) => i),
    )
    return whole.map(([, output]) => output)
  }
  if (member !== undefined) {
    return Object.fromEntries(Object.entries(value).flatMap(([name, one]) => parseWhole(member, one, name)))
  }
  if (entries === undefined) return undefined
  const parts = Object.entries(entries).flatMap(([name, entry]) => {
    const isThere = Object.hasOwn(value, name)
    const part =
      isThere || entry.type === 'optional' ? salvage(entry, readOwn(value, name), [...path, name], kept) : undefined
    return part === undefined ? [] : [[name, part] as const]
  })
  return Object.fromEntries(parts)
}

function readOwn(value: object, name: string): unknown {
  return Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
}

function parseWhole<K>(described: Described, value: unknown, key: K): (readonly [K, unknown])[] {
  const result = v.safeParse(described as v.GenericSchema, value)
  return result.success ? [[key, result.output]] : []
}

/** Keys that no group knows, settings without a value, lists where groups belong, and names that JavaScript keeps. */
function findMisplaced(value: unknown, described: Described, path: Path): Fault[] {
  const { entries, item, value: member, wrapped } = described
  if (value === null) return [{ path, problem: emptyText(path, described.type !== 'optional') }]
  if (wrapped !== undefined) return findMisplaced(value, wrapped, path)
  if (typeof value !== 'object') return []
  if (Array.isArray(value)) {
    if (entries !== undefined || member !== undefined) return [{ path, problem: 'must be a group of settings.' }]
    return item === undefined ? [] : value.flatMap((one, i) => findInEntry(one, item, [...path, i]))
  }
  return Object.entries(value).flatMap(([key, one]): Fault[] => {
    const place = [...path, key]
    if (entries !== undefined) {
      const known = Object.hasOwn(entries, key) ? entries[key] : undefined
      return known === undefined ? [unknownKey(place, Object.keys(entries))] : findMisplaced(one, known, place)
    }
    if (member === undefined) return []
    if (RESERVED.has(key)) return [{ path: place, problem: `cannot be named "${key}": choose another name.` }]
    return findInEntry(one, member, place)
  })
}

/** An entry of a list, or a member with a name of the operator's choice, can always be removed. */
function findInEntry(value: unknown, described: Described, path: Path): Fault[] {
  return value === null ? [{ path, problem: emptyText(path, false) }] : findMisplaced(value, described, path)
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

/** Why a setting must be there. */
const REASONS: Readonly<Record<string, string>> = {
  issuers: 'name the authorization server whose tokens are accepted, as issuer and audience',
  upstream: 'name the backend, such as http://127.0.0.1:3000',
  audience: 'without it, a token for any other API of the issuer would be accepted here',
}

function missingText(path: Path): string {
  const reason = REASONS[String(path.at(-1))]
  return reason === undefined ? 'is missing.' : `is missing: ${reason}.`
}

function emptyText(path: Path, isRequired: boolean): string {
  if (!isRequired) return 'is empty: give it a value, or remove it.'
  return `is empty: ${REASONS[String(path.at(-1))] ?? 'give it a value'}.`
}

/** One complaint per place is enough: the first. So is one about a group that is none, without those about its members. */
function onePerPlace(faults: readonly Fault[]): Fault[] {
  const seen = new Set<string>()
  return faults.filter(({ path }) => {
    for (let length = 1; length <= path.length; length += 1) {
      if (seen.has(textOf(path.slice(0, length)))) return false
    }
    seen.add(textOf(path))
    return true
  })
}
