import { readFileSync } from 'node:fs'
import {
  isAlias,
  isMap,
  isScalar,
  LineCounter,
  parseAllDocuments,
  visit,
  type Document,
  type Node,
  type YAMLError,
} from 'yaml'
import { ConfigError, type Problem } from '../errors.ts'

export type Path = readonly (string | number)[]

/** A configuration file: its values, and where each of them stands. */
export interface ConfigDocument {
  /** As written: a setting without a value is `null`. */
  readonly values: Record<string, unknown>
  /** 1-based line of a setting, or of the nearest setting around it that is there. */
  lineOf(path: Path): number
}

const MAX_FILE_BYTES = 1024 * 1024
/** Enough for anchors in a hand-written file, too few for a file that is small on disk and huge in memory. */
const MAX_ALIASES = 100
/** No setting is deeper. */
const MAX_DEPTH = 16
const TOO_DEEP = 'the file is nested too deeply.'

/** A place in the text, in characters, with what is wrong there. */
interface Mistake {
  readonly offset: number
  readonly problem: string
}

/**
 * Reads a YAML file.
 *
 * @throws ConfigError when the file cannot be read, is larger than 1 MiB, is not UTF-8, or is not one YAML mapping
 */
export function readDocument(file: string): ConfigDocument {
  const source = readText(file)
  try {
    return parseText(file, source)
  } catch (error) {
    // The parser and the visitor call themselves once per level.
    if (error instanceof RangeError) throw fault(file, TOO_DEEP)
    throw error
  }
}

function parseText(file: string, source: string): ConfigDocument {
  const lineCounter = new LineCounter()
  const documents = parseAllDocuments(source, { lineCounter, uniqueKeys: true, version: '1.2', logLevel: 'error' })
  if (!Array.isArray(documents) || documents.length === 0) throw fault(file, 'the file is empty.')
  if (documents.length > 1) throw fault(file, 'the file holds several YAML documents; write one.')
  const document = documents[0] as Document.Parsed
  const lineAt = (offset: number) => lineCounter.linePos(offset).line
  const mistakes = findMistakes(document, source)
  if (mistakes.length > 0) {
    const found = new Map<string, Problem>()
    for (const { offset, problem } of mistakes.sort((a, b) => a.offset - b.offset)) {
      const line = lineAt(offset)
      found.set(`${line} ${problem}`, { source: file, line, path: '', problem })
    }
    throw new ConfigError([...found.values()])
  }
  if (!isMap(document.contents)) throw fault(file, 'the file is not a mapping of settings.')
  const values = toValues(document, file)
  const lineOf = (path: Path) => lineAt(offsetOf(document, path))
  const deep = findDeepest(values, [])
  if (deep !== undefined) throw new ConfigError([{ source: file, line: lineOf(deep), path: '', problem: TOO_DEEP }])
  return { values: values as Record<string, unknown>, lineOf }
}

/** Types that the parser knows and a configuration has no use for: a set would be taken for an empty group. */
const OTHER_TYPE = /^tag:yaml\.org,2002:(binary|merge|omap|pairs|set|timestamp)$/

/** What the parser objects to, and what it lets pass although nobody means it. */
function findMistakes(document: Document.Parsed, source: string): Mistake[] {
  const errors = [...document.errors, ...document.warnings]
  if (errors.some(({ message }) => message.includes('call stack'))) throw new RangeError()
  const mistakes: Mistake[] = errors.map((error) => ({
    offset: error.pos[0],
    problem: describeYamlError(error, source),
  }))
  const { explicit, version } = document.directives.yaml
  if (explicit === true && version !== '1.2') {
    const problem = `the file asks for YAML ${version}, in which yes, no and 010 mean something else: only 1.2 is read.`
    mistakes.push({ offset: Math.max(source.indexOf('%YAML'), 0), problem })
  }
  visit(document, {
    Alias(_key, node, around) {
      const problem = describeAlias(node.resolve(document), around)
      if (problem !== undefined) mistakes.push({ offset: node.range?.[0] ?? 0, problem })
    },
    Node(_key, { tag, range }) {
      if (tag === undefined || !OTHER_TYPE.test(tag)) return
      mistakes.push({ offset: range?.[0] ?? 0, problem: 'a tag (!NAME) means nothing here.' })
    },
    Pair(_key, { key, value }) {
      if (isAlias(key) || (isScalar(key) && key.value !== null)) return
      const offset = ((key ?? value) as Node | null)?.range?.[0] ?? 0
      mistakes.push({ offset, problem: 'the name of a setting must be text.' })
    },
  })
  return mistakes
}

function describeAlias(anchored: unknown, around: readonly unknown[]): string | undefined {
  if (anchored === undefined) return 'an alias (*NAME) has no anchor (&NAME) before it.'
  return around.includes(anchored) ? 'an alias (*NAME) refers to what it is part of.' : undefined
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
  } catch (error) {
    if (error instanceof RangeError) throw error
    throw fault(file, 'the file uses more aliases than a configuration needs.')
  }
}

/** A place that is deeper than any setting. */
function findDeepest(value: unknown, path: Path): Path | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (path.length > MAX_DEPTH) return path
  const isList = Array.isArray(value)
  for (const [key, member] of Object.entries(value)) {
    const deep = findDeepest(member, [...path, isList ? Number(key) : key])
    if (deep !== undefined) return deep
  }
  return undefined
}

/** Where a setting begins: at its key, if it has one. */
function offsetOf(document: Document.Parsed, path: Path): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent: unknown = document.getIn(path.slice(0, length - 1), true)
    const last = path[length - 1]
    const pair = isMap(parent)
      ? parent.items.find(({ key }) => isScalar(key) && String(key.value) === String(last))
      : undefined
    const node = (pair?.key ?? document.getIn(path.slice(0, length), true)) as Node | undefined
    const range = node?.range
    if (range !== undefined && range !== null) return range[0]
  }
  return document.contents?.range[0] ?? 0
}

function fault(file: string, problem: string): ConfigError {
  return new ConfigError([{ source: file, path: '', problem }])
}
