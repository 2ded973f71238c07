import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../../src/config/load.ts'
import type { Config } from '../../../src/config/schema.ts'
import { ConfigError, type Problem } from '../../../src/errors.ts'

const VALID = 'issuers:\n  - issuer: https://t.example/\n    audience: api\nupstream: http://127.0.0.1:3000\n'
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'bearward.yaml')

function load(text: string | Uint8Array, env: Record<string, string> = {}): Config {
  writeFileSync(file, text)
  return loadConfig({ file, env })
}

function problemsOf(run: () => unknown): readonly Problem[] {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error('the configuration was accepted')
}

const refuse = (text: string | Uint8Array, env: Record<string, string> = {}) => problemsOf(() => load(text, env))

describe('the smallest file', () => {
  it('has every default', () => {
    const config = load(VALID)
    expect(config.issuers).toEqual([
      {
        name: 't.example',
        issuer: 'https://t.example/',
        preset: 'generic',
        audience: { claim: 'aud', values: ['api'] },
        issuer_aliases: [],
        insecure_any_tenant: false,
        token_kind: 'access_token',
        access_token_claims: [],
        required_claims: [],
        forbidden_claims: [],
        roles: [['roles']],
        permissions: [['permissions']],
        algorithms: ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
        token_types: ['at+jwt', 'JWT', 'absent'],
        clock_tolerance: 30_000,
        jwks_max_stale: 86_400_000,
        jwks_refresh_interval: 600_000,
        insecure_http: false,
      },
    ])
    expect(config.upstream).toEqual({
      url: 'http://127.0.0.1:3000',
      connect_timeout: 3_000,
      response_timeout: 60_000,
      total_timeout: 0,
      idle_timeout: 900_000,
      connections: 256,
    })
    expect(config.listen).toEqual({
      proxy: { host: '0.0.0.0', port: 8080 },
      ops: { host: '0.0.0.0', port: 9090 },
      helper: { host: '127.0.0.1', port: 8181 },
      trusted_proxies: [],
      insecure_helper_address: false,
    })
    expect(config.rules).toEqual([])
    expect(config.identity).toEqual({
      prefix: 'x-auth-',
      default_headers: true,
      headers: [],
      forward_authorization: false,
      max_header_bytes: 8192,
      max_total_bytes: 16_384,
    })
    expect(config.target).toEqual({
      insecure_allow_semicolon: false,
      insecure_allow_encoded_slash: false,
      insecure_literal_paths: false,
    })
    expect(config.limits).toEqual({
      token_bytes: 16_384,
      header_bytes: 32_768,
      target_bytes: 8192,
      body_timeout: 60_000,
      connections: 10_000,
      header_count: 128,
      requests_in_flight: 2048,
      send_timeout: 60_000,
      headers_timeout: 15_000,
      keep_alive_timeout: 75_000,
      concurrent_streams: 256,
      token_cache_entries: 10_000,
      token_cache_bytes: 33_554_432,
    })
    expect(config.helper).toEqual({ clients: {}, callers: {}, timeout: 10_000, validation_wait: 30_000 })
    expect(config.drain).toEqual({ delay: 5_000, timeout: 20_000 })
    expect(config.telemetry).toEqual({ log_level: 'info', access_log: true })
  })

  it('is frozen through and through', () => {
    const config = load(VALID)
    expect(Object.isFrozen(config)).toBe(true)
    expect(Object.isFrozen(config.issuers[0]?.audience)).toBe(true)
    expect(Object.isFrozen(config.listen.proxy)).toBe(true)
  })
})

describe('what a file says', () => {
  it('keeps an issuer exactly as it is written', () => {
    const issuer = 'https://T.example:443/a/../b?x#y'
    expect(load(VALID.replace('https://t.example/', `"${issuer}"`)).issuers[0]?.issuer).toBe(issuer)
  })

  it('names an issuer after its host and port', () => {
    expect(load(VALID.replace('t.example/', 'T.example:8443/x')).issuers[0]?.name).toBe('t.example-8443')
  })

  it('gives all settings of the upstream beside its URL', () => {
    const { upstream } = load(VALID.replace(' http://127', '\n  connections: 2\n  url: http://127'))
    expect(upstream).toMatchObject({ url: 'http://127.0.0.1:3000', connections: 2, connect_timeout: 3_000 })
  })

  it('resolves files against its own folder, not the working directory', () => {
    const config = load(
      VALID.replace('audience: api', 'audience: api\n    jwks_file: ./keys.json') +
        'helper:\n  clients:\n    web:\n      client_id: web\n      client_secret: { file: secret }\n' +
        '      token_endpoint: https://t.example/token\n',
    )
    expect(config.issuers[0]?.jwks_file).toBe(join(folder, 'keys.json'))
    expect(config.helper.clients['web']?.client_secret).toEqual({ file: join(folder, 'secret') })
  })

  it('lower-cases the names of identity headers', () => {
    const { identity } = load(VALID + 'identity:\n  headers:\n    - header: X-Auth-Org\n      claim: org_id\n')
    expect(identity.headers).toEqual([
      { header: 'x-auth-org', claim: ['org_id'], format: 'string', on_missing: 'omit' },
    ])
  })

  it('may use one rule for all methods beside one for some', () => {
    const { rules } = load(
      VALID + 'rules:\n  - name: a\n    prefix: [/a]\n  - name: b\n    prefix: [/a]\n    methods: [GET]\n',
    )
    expect(rules.map(({ name, methods }) => [name, methods])).toEqual([
      ['a', undefined],
      ['b', ['GET']],
    ])
  })

  it('may hold paths that differ by letter case alone when the operator vouches for the backend', () => {
    const rules = 'rules:\n  - name: a\n    exact: [/A]\n  - name: b\n    exact: [/a]\n'
    expect(refuse(VALID + rules)).toHaveLength(1)
    expect(load(`${VALID}${rules}target:\n  insecure_literal_paths: true\n`).rules).toHaveLength(2)
  })

  it('may hold http addresses on this machine, and elsewhere only with insecure_http', () => {
    const http = (host: string) => VALID.replace('https://t.example/', `http://${host}/`)
    for (const host of ['127.0.0.1:9', '127.8.8.8', 'localhost', '[::1]:9']) {
      expect(load(http(host)).issuers[0]?.issuer).toBe(`http://${host}/`)
    }
    expect(refuse(http('127.0.0.1.example')).map(({ path }) => path)).toEqual(['issuers[0].issuer'])
    const allowed = http('t.example').replace('audience: api', 'audience: api\n    insecure_http: true')
    expect(load(allowed).issuers[0]?.insecure_http).toBe(true)
  })
})

describe('a file that is not one YAML mapping in UTF-8', () => {
  it.each<[string, string | Uint8Array, RegExp]>([
    ['empty', '', /empty/],
    ['only comments', '# nothing\n', /empty/],
    ['a list', '- a\n', /mapping/],
    ['several documents', `${VALID}---\n${VALID}`, /several/],
    ['not UTF-8', Uint8Array.of(0x61, 0x3a, 0x20, 0xff), /UTF-8/],
    ['larger than 1 MiB', '#'.repeat(1024 * 1024 + 1), /1 MiB/],
    ['an alias bomb', bomb(), /aliases/],
  ])('is refused in one sentence: %s', (_what, text, sentence) => {
    const problems = refuse(text)
    expect(problems.map(({ source, path }) => [source, path])).toEqual([[file, '']])
    expect(problems[0]?.problem).toMatch(sentence)
  })

  it('is refused in one sentence: missing, or a folder', () => {
    const missing = problemsOf(() => loadConfig({ file: join(folder, 'missing.yaml'), env: {} }))
    expect(missing.map(({ problem }) => problem)).toEqual([expect.stringContaining('no such file')])
    const directory = problemsOf(() => loadConfig({ file: folder, env: {} }))
    expect(directory.map(({ problem }) => problem)).toEqual([expect.stringContaining('directory')])
  })

  it.each([
    ['a key twice', `${VALID}upstream: http://127.0.0.1:1\n`, 5],
    ['a tab for indentation', `${VALID}drain:\n\tdelay: 1s\n`, 6],
    ['a quote that does not end', `${VALID}rules: "\n`, 6],
  ])('is refused with the line: %s', (_what, text, line) => {
    expect(refuse(text)[0]).toMatchObject({ source: file, line })
  })
})

function bomb(): string {
  const nest = (name: string, of: string) => `${name}: &${name} [${Array.from({ length: 10 }, () => of).join(', ')}]\n`
  return nest('a', '1') + nest('b', '*a') + nest('c', '*b') + nest('d', '*c') + nest('e', '*d')
}

describe('a secret in the wrong place', () => {
  it.each([
    ['as text', 'canary-9d1e'],
    ['as a key', '{ canary-9d1e }'],
    ['beside a reference', '{ file: a, canary-9d1e: 1 }'],
    ['as an alias', '*canary-9d1e'],
    ['unfinished', '"canary-9d1e'],
    ['as a list', '[canary-9d1e]'],
  ])('is refused and never printed: %s', (_what, value) => {
    const text = `${VALID}helper:\n  clients:\n    web:\n      client_id: web\n      client_secret: ${value}\n`
    const problems = refuse(text)
    expect(problems.length).toBeGreaterThan(0)
    expect(new ConfigError(problems).message).not.toContain('canary')
  })
})

describe('a file with very many problems', () => {
  it('names the first ones and says how many more there are', () => {
    const rules = Array.from({ length: 200 }, (_, i) => `  - { name: r${i}, exact: [x] }\n`).join('')
    const problems = refuse(`${VALID}rules:\n${rules}`)
    expect(problems).toHaveLength(200)
    const lines = new ConfigError(problems).message.split('\n')
    expect(lines).toHaveLength(51)
    expect(lines[0]).toBe(`${file}:6: rules[0].exact[0]: must begin with "/".`)
    expect(lines.at(-1)).toBe(`${file}: 150 more problems are not shown.`)
  })
})
