import { stringify } from 'yaml'
import * as v from 'valibot'
import type { FieldDoc } from './fields.ts'
import type { Described } from './parse.ts'
import { schema, type Config } from './schema.ts'

/**
 * Writes a configuration as a file that says everything: presets and defaults filled in, in the units of the file. It holds
 * references to secrets, as every configuration does, and never a secret.
 */
export function renderEffective(config: Config): string {
  return stringify(write(config, schema), { lineWidth: 120 })
}

function write(value: unknown, described: Described): unknown {
  const inner = described.wrapped ?? described
  if (value === undefined) return undefined
  if (inner.entries !== undefined) return writeGroup(value, inner.entries)
  if (inner.item !== undefined) return (value as unknown[]).map((one) => write(one, inner.item as Described))
  if (inner.value !== undefined) {
    const members = Object.entries(value as object)
    return Object.fromEntries(members.map(([name, one]) => [name, write(one, inner.value as Described)]))
  }
  const { doc }: { doc?: FieldDoc } = v.getMetadata(inner as unknown as v.GenericSchema)
  return writeField(value, doc?.kind ?? '')
}

function writeGroup(value: unknown, entries: Readonly<Record<string, Described>>): unknown {
  const group = value as Record<string, unknown>
  return Object.fromEntries(
    Object.entries(entries).flatMap(([name, entry]) => (name in group ? [[name, write(group[name], entry)]] : [])),
  )
}

const DURATIONS = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
] as const
const SIZES = [
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
  ['B', 1],
] as const

function writeField(value: unknown, kind: string): unknown {
  if (kind.startsWith('duration,')) return inUnits(value as number, DURATIONS)
  if (kind.startsWith('size,')) return inUnits(value as number, SIZES)
  if (!kind.startsWith('HOST:PORT')) return value
  if ('path' in (value as object)) return `unix:${(value as { path: string }).path}`
  const { host, port } = value as { host: string; port: number }
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** In the largest unit that leaves a whole number. */
function inUnits(value: number, units: readonly (readonly [string, number])[]): string | number {
  const [unit, factor] = units.find(([, size]) => value % size === 0) ?? ['', 1]
  return value === 0 ? 0 : `${value / factor}${unit}`
}
