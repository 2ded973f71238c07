import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { loadConfig } from '../src/config/load.ts'
import { CODES } from '../src/errors.ts'
import { allSettings, renderReference, renderSchema } from './dev/generate.ts'

const CONFIG = resolve(import.meta.dirname, '../config')
const read = (name: string) => readFileSync(join(CONFIG, name), 'utf8')

describe('generated files', () => {
  it('bearward.schema.json is what "npm run generate" writes', async () => {
    expect(read('bearward.schema.json')).toBe(await renderSchema())
  })

  it('reference.md is what "npm run generate" writes', async () => {
    expect(read('reference.md')).toBe(await renderReference())
  })

  it('the reference describes every setting and every code', () => {
    const reference = read('reference.md')
    const absent = [...allSettings().map(({ path }) => path), ...Object.keys(CODES)].filter(
      (name) => !reference.includes(`\`${name}\``),
    )
    expect(absent).toEqual([])
  })
})

describe('the example', () => {
  it('names the schema for editors in its first line', () => {
    expect(read('bearward.yaml').split('\n', 1)).toEqual(['# yaml-language-server: $schema=./bearward.schema.json'])
  })

  it('loads as it is, with the smallest safe part active', () => {
    const config = loadConfig({ file: join(CONFIG, 'bearward.yaml'), env: {} })
    expect(config.issuers).toHaveLength(1)
    expect(config.rules).toEqual([])
  })

  it('shows every setting but the one that opens everything', () => {
    const shown = new Set([
      ...pathsIn(parse(uncomment(read('bearward.yaml')))),
      // Alternatives to what is left active, and to `any`.
      ...['issuers[].jwks_file', 'issuers[].discovery_url', 'rules[].scopes.all'],
      ...['rules[].roles.all', 'rules[].permissions.any'],
      // For issuers of many tenants; examples/entra-multi-tenant.yaml shows them.
      ...['issuers[].tenants', 'issuers[].insecure_any_tenant'],
    ])
    const absent = allSettings()
      .map(({ path }) => path)
      .filter((path) => !shown.has(path))
    expect(absent).toEqual(['rules[].insecure_catch_all'])
  })

  it('is valid with everything in it that is commented out', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
    try {
      const file = join(folder, 'bearward.yaml')
      writeFileSync(file, uncomment(read('bearward.yaml')))
      const config = loadConfig({ file, env: {} })
      expect(config.rules.map(({ name }) => name)).toEqual(['health', 'orders', 'internal'])
      expect(Object.keys(config.helper.clients)).toEqual(['web', 'signing', 'mutual-tls'])
      expect(config.issuers[0]?.algorithms).toEqual(['RS256'])
      expect(config.listen.trusted_proxies).toEqual(['10.0.0.0/8'])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

/** Takes the comment signs off the settings; of alternatives, one is left. */
function uncomment(text: string): string {
  const alternatives = /^upstream: |^ *(jwks_file|discovery_url):/
  return text
    .split('\n')
    .map((line) => line.replace(/^# (?= |[a-z_]+:)/, '').replace(/^( +)# (?=[a-z_]+:)/, '$1'))
    .filter((line) => !alternatives.test(line))
    .join('\n')
}

/** The paths of everything in a value, written as the reference writes them. */
function pathsIn(value: unknown, at = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => pathsIn(item, `${at}[]`))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    const name = at === 'helper.clients' || at === 'helper.callers' ? 'NAME' : key
    const path = at === '' ? name : `${at}.${name}`
    return [path, ...pathsIn(member, path)]
  })
}
