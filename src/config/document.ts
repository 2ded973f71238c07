import { readFileSync } from 'node:fs'
import { isMap, isScalar, LineCounter, parseAllDocuments, type Document, type Node, type YAMLError, visit } from 'yaml'
import { ConfigError } from '../errors.ts'

export type Path = readonly (string | number)[]

/** A configuration file: its values, and where each of them stands. */
export interface ConfigDocument {
  readonly values: Record<string, unknown>
  /** Settings that are written without a value. They are left out of `values`. */
  readonly empty: readonly Path[]
  /** 1-based line of a setting, or of the nearest setting around it that is there. */
  lineOf(path: Path): number
}

const MAX_FILE_BYTES = 1024 * 1024
/** Enough for anchors in a hand-written file, too few for a file that is small on disk and huge in memory. */
const MAX_ALIASES = 100
/** No setting is deeper; a value that refers to itself is deeper than anything. */
const MAX_DEPTH = 16

/**
 * Reads a YAML file.
 *
 * @throws ConfigError when the file cannot be read, is larger than 1 MiB, is not UTF-8, or is not one YAML mapping
 */
export function readDocument(file: string): ConfigDocument {
  const lineCounter = new LineCounter()
  const source = readText(file)
  const documents = parseAllDocuments(source, { lineCounter, uniqueKeys: true, version: '1.2' })
  if (!Array.isArray(documents) || documents.length === 0) throw fault(file, 'the file is empty.')
  if (documents.length > 1) throw fault(file, 'the file holds several YAML documents; write one.')
  const document = documents[0] as Document.Parsed
  const text = (offset: number) => lineCounter.linePos(offset).line
  const errors = [...document.errors, ...document.warnings].map((error) => ({
    source: file,
    line: text(error.pos[0]),
    path: '',
    problem: describeYamlError(error, source),
  }))
  visit(document, {
    Alias(_key, node) {
      if (node.resolve(document) !== undefined) return
      const problem = 'an alias (*NAME) has no anchor (&NAME) before it.'
      errors.push({ source: file, line: text(node.range?.[0] ?? 0), path: '', problem })
    },
  })
  if (errors.length > 0) throw new ConfigError(errors)
  const { explicit, version } = document.directives.yaml
  if (explicit === true && version !== '1.2') throw fault(file, `the file asks for YAML ${version}; only 1.2 is read.`)
  if (!isMap(document.contents)) throw fault(file, 'the file is not a mapping of settings.')
  const empty: Path[] = []
  const values = withoutNulls(toValues(document, file), [], empty)
  if (values === undefined) throw fault(file, 'the file is nested too deeply, or an alias refers to itself.')
  return { values: values as Record<string, unknown>, empty, lineOf: (path) => text(offsetOf(document, path)) }
}

function describeYamlError({ code, message, pos }: YAMLError, source: string): string {
  const word = /^["']?([^\s"':,{}[\]]+)/.exec(source.slice(pos[0]))?.[1] ?? ''
  if (code === 'DUPLICATE_KEY') return `"${word}" is set twice.`
  if (code === 'TAG_RESOLVE_FAILED') return 'a tag (!NAME) means nothing here.'
  return `${message.split('\n', 1)[0]?.replace(/ at line \d+.*$/, '')}.`
}

function readText(file: string): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
    const reasons: Record<string, string> = { ENOENT: 'there is no such file', EISDIR: 'it is a directory' }
    throw fault(file, `the configuration cannot be read: ${reasons[code] ?? code}.`)
  }
  if (bytes.length > MAX_FILE_BYTES) throw fault(file, 'the file is larger than 1 MiB.')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw fault(file, 'the file is not UTF-8.')
  }
}

function toValues(document: Document.Parsed, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES })
  } catch {
    throw fault(file, 'the file uses more aliases than a configuration needs.')
  }
}

/** The values without those that are null, whose places are collected; `undefined` when they are too deep. */
function withoutNulls(value: unknown, path: Path, empty: Path[]): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (path.length > MAX_DEPTH) return undefined
  const isList = Array.isArray(value)
  const kept: [string, unknown][] = []
  for (const [key, member] of Object.entries(value)) {
    const place = [...path, isList ? Number(key) : key]
    if (member === null) {
      empty.push(place)
      continue
    }
    const inner = withoutNulls(member, place, empty)
    if (inner === undefined) return undefined
    kept.push([key, inner])
  }
  return isList ? kept.map(([, inner]) => inner) : Object.fromEntries(kept)
}

/** Where a setting begins: at its key, if it has one. */
function offsetOf(document: Document.Parsed, path: Path): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent: unknown = document.getIn(path.slice(0, length - 1), true)
    const last = path[length - 1]
    const pair = isMap(parent) ? parent.items.find(({ key }) => isScalar(key) && key.value === last) : undefined
    const node = (pair?.key ?? document.getIn(path.slice(0, length), true)) as Node | undefined
    const range = node?.range
    if (range !== undefined && range !== null) return range[0]
  }
  return document.contents?.range[0] ?? 0
}

function fault(file: string, problem: string): ConfigError {
  return new ConfigError([{ source: file, path: '', problem }])
}
