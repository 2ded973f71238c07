import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const SRC = resolve(import.meta.dirname, '../src')

/** Arrows only downward; rooms of one level never import each other (ARCHITECTURE.md, "Import direction"). */
const LEVEL: Readonly<Record<string, number>> = {
  'main.ts': 8,
  commands: 8,
  'app.ts': 7,
  'runtime.ts': 6,
  'listeners.ts': 6,
  'clients.ts': 5.7,
  'callers.ts': 5.6,
  'spending.ts': 5.6,
  'client-spending.ts': 5.6,
  'parts.ts': 5.5,
  proxy: 5,
  admin: 5,
  gate: 4,
  helper: 4,
  token: 3,
  issuer: 2,
  server: 2,
  http: 1,
  telemetry: 1,
  config: 1,
  store: 1,
  'errors.ts': 0,
  util: 0,
}

/** Which files may import a package. A folder ends in `/`. */
const FENCES: Readonly<Record<string, readonly string[]>> = {
  '@redis/client': ['store/redis.ts'],
  undici: ['issuer/egress.ts', 'issuer/undici.d.ts'],
  jose: ['token/', 'helper/validate.ts', 'helper/seal.ts'],
  oauth4webapi: ['helper/'],
  'lru-cache': ['token/cache.ts'],
  pino: ['telemetry/log.ts'],
  'prom-client': ['telemetry/metrics.ts'],
  yaml: ['config/'],
  valibot: ['config/'],
}

/** Words that may stand in few places only, outside comments. */
const WORDS: readonly (readonly [RegExp, string, readonly string[]])[] = [
  [/process\.env/, 'process.env', ['main.ts']],
  [/process\.exit\(/, 'process.exit', ['main.ts']],
  [/Date\.now/, 'Date.now', ['util/clock.ts']],
  [/grantPermit\(/, 'grantPermit', ['gate/gate.ts', 'gate/permit.ts']],
  [/\.dispatch\(/, 'dispatch', ['proxy/forward.ts', 'proxy/upstream.ts']],
  [/new URL\(/, 'new URL', ['config/', 'issuer/', 'parts.ts', 'spending.ts', 'runtime.ts', 'main.ts']],
  [/console\./, 'console', []],
]

interface Source {
  readonly path: string
  readonly imports: readonly string[]
  readonly code: string
  readonly lines: number
}

const sources: Source[] = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => {
    const text = readFileSync(join(SRC, path), 'utf8')
    const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '')
    const imports = [...code.matchAll(/(?:from|import\()\s*'([^']+)'/g)].map((match) => match[1] as string)
    return { path, imports, code, lines: text.trimEnd().split('\n').length }
  })

const roomOf = (path: string) => path.split('/')[0] as string
/** The package of what is imported, when it is a file within one. */
const packageOf = (name: string) => name.split('/', name.startsWith('@') ? 2 : 1).join('/')
const isWithin = (path: string, places: readonly string[]) =>
  places.some((place) => (place.endsWith('/') ? path.startsWith(place) : path === place))

describe('the house', () => {
  it('has a level for every room', () => {
    expect([...new Set(sources.map(({ path }) => roomOf(path)))].filter((room) => LEVEL[room] === undefined)).toEqual(
      [],
    )
  })

  it('is imported from above only', () => {
    const upward = sources.flatMap(({ path, imports }) =>
      imports
        .filter((name) => name.startsWith('.'))
        .map((name) => relative(SRC, resolve(SRC, dirname(path), name)))
        .filter((target) => roomOf(target) !== roomOf(path))
        .filter((target) => (LEVEL[roomOf(target)] ?? 9) >= (LEVEL[roomOf(path)] ?? 0))
        // The registry of commands is read by main.ts, on the same level.
        .filter((target) => !(path === 'main.ts' && roomOf(target) === 'commands'))
        .map((target) => `${path} -> ${target}`),
    )
    expect(upward).toEqual([])
  })

  it('reads configuration in the builder and above alone', () => {
    const readers = sources
      .filter(({ path, imports }) => roomOf(path) !== 'config' && imports.some((name) => name.includes('/config/')))
      .map(({ path }) => path)
      .filter(
        (path) =>
          !isWithin(path, [
            'parts.ts',
            'callers.ts',
            'spending.ts',
            'client-spending.ts',
            'clients.ts',
            'listeners.ts',
            'runtime.ts',
            'app.ts',
            'commands/',
            'main.ts',
          ]),
      )
    expect(readers).toEqual([])
  })

  it('imports packages behind their fences alone', () => {
    const breaches = sources.flatMap(({ path, imports }) =>
      imports
        .filter((name) => !name.startsWith('.') && !name.startsWith('node:'))
        .filter((name) => !isWithin(path, FENCES[packageOf(name)] ?? []))
        .map((name) => `${path} -> ${name}`),
    )
    expect(breaches).toEqual([])
  })

  it('has production dependencies that are fenced, and no others', () => {
    const { dependencies } = JSON.parse(readFileSync(resolve(SRC, '../package.json'), 'utf8')) as {
      dependencies: Record<string, string>
    }
    expect(Object.keys(dependencies).sort()).toEqual(Object.keys(FENCES).sort())
  })

  it.each(WORDS)('%s stays where it belongs', (pattern, _name, places) => {
    const found = sources
      .filter(({ path, code }) => pattern.test(code) && !isWithin(path, places))
      .map(({ path }) => path)
    expect(found).toEqual([])
  })

  it('has no file of more than 300 lines', () => {
    expect(sources.filter(({ lines }) => lines > 300).map(({ path, lines }) => `${path}: ${lines}`)).toEqual([])
  })

  it('names no file or folder after a drawer', () => {
    const drawers = /(^|[/-])(utils|helpers|common|manager|service|impl|base)(\.ts|[/-]|$)/
    expect(sources.map(({ path }) => path).filter((path) => drawers.test(path))).toEqual([])
  })
})
