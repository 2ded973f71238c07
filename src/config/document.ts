import { readFileSync } from 'node:fs'
import { isMap, isScalar, LineCounter, parseAllDocuments, type Document, type Node } from 'yaml'
import { ConfigError } from '../errors.ts'

export type Path = readonly (string | number)[]

/** A configuration file: its values, and where each of them stands. */
export interface ConfigDocument {
  readonly values: Record<string, unknown>
  /** 1-based line of a setting, or of the nearest setting around it that is there. */
  lineOf(path: Path): number
}

const MAX_FILE_BYTES = 1024 * 1024
/** Enough for anchors in a hand-written file, too few for a file that is small on disk and huge in memory. */
const MAX_ALIASES = 100

/**
 * Reads a YAML file.
 *
 * @throws ConfigError when the file cannot be read, is larger than 1 MiB, is not UTF-8, or is not one YAML mapping
 */
export function readDocument(file: string): ConfigDocument {
  const lineCounter = new LineCounter()
  const documents = parseAllDocuments(readText(file), { lineCounter, uniqueKeys: true, version: '1.2' })
  if (!Array.isArray(documents) || documents.length === 0) throw fault(file, 'the file is empty.')
  if (documents.length > 1) throw fault(file, 'the file holds several YAML documents; write one.')
  const document = documents[0] as Document.Parsed
  if (document.errors.length > 0) {
    throw new ConfigError(
      document.errors.map((error) => ({
        source: file,
        line: lineCounter.linePos(error.pos[0]).line,
        path: '',
        problem: `${error.message.split('\n', 1)[0]?.replace(/ at line \d+.*$/, '')}.`,
      })),
    )
  }
  if (!isMap(document.contents)) throw fault(file, 'the file is not a mapping of settings.')
  return { values: toValues(document, file), lineOf: (path) => lineCounter.linePos(offsetOf(document, path)).line }
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

function toValues(document: Document.Parsed, file: string): Record<string, unknown> {
  try {
    return withoutNulls(document.toJS({ maxAliasCount: MAX_ALIASES })) as Record<string, unknown>
  } catch {
    throw fault(file, 'the file uses more aliases than a configuration needs.')
  }
}

/** A key without a value counts as left out, so that the complaint is about what is missing. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== 'object' || value === null) return value
  const kept = Object.entries(value).filter(([, member]) => member !== null)
  return Object.fromEntries(kept.map(([key, member]) => [key, withoutNulls(member)]))
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
