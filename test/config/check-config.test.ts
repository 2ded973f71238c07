import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { checkConfig } from '../../src/commands/check-config.ts'

const VALID = 'issuers:\n  - issuer: https://t.example/\n    audience: api\nupstream: http://127.0.0.1:3000\n'
const CANARY = 'canary-52c1'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-'))))
afterEach(() => rmSync(folder, { recursive: true }))

function write(name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}

function run(argv: readonly string[], env: Record<string, string> = {}) {
  let stdout = ''
  let stderr = ''
  const code = checkConfig(argv, {
    stdout: (text) => void (stdout += text),
    stderr: (text) => void (stderr += text),
    env,
  })
  return { code, stdout, stderr }
}

describe('check-config', () => {
  it('says in one line what a valid file holds', () => {
    const file = write('c.yaml', VALID)
    expect(run([file])).toEqual({
      code: 0,
      stdout: `${file} is valid: 1 issuer, 0 rules, upstream http://127.0.0.1:3000.\n`,
      stderr: '',
    })
  })

  it('checks what the environment describes when no file is named', () => {
    const env = {
      BEARWARD_ISSUER: 'https://t.example/',
      BEARWARD_AUDIENCE: 'api',
      BEARWARD_UPSTREAM: 'http://127.0.0.1:3000',
    }
    const { code, stdout } = run([], env)
    expect(code).toBe(0)
    expect(stdout).toBe('The environment is valid: 1 issuer, 0 rules, upstream http://127.0.0.1:3000.\n')
  })

  it('prints every problem as a line, counts them and exits with 78', () => {
    const file = write('c.yaml', VALID + 'drain: { delay: 5, timeout: 0s }\n')
    const { code, stdout, stderr } = run([file])
    expect(code).toBe(78)
    expect(stdout).toBe('')
    const lines = stderr.trimEnd().split('\n')
    expect(lines.slice(0, 2).map((line) => line.slice(0, `${file}:5: drain.`.length))).toEqual([
      `${file}:5: drain.`,
      `${file}:5: drain.`,
    ])
    expect(lines.slice(2)).toEqual(['2 problems found.'])
  })

  it('warns of every protection that is off and of an upstream that others may reach', () => {
    const text = VALID.replace('127.0.0.1', '10.1.2.3') + 'target:\n  insecure_literal_paths: true\n'
    const { code, stdout } = run([write('c.yaml', text)])
    expect(code).toBe(0)
    expect(stdout.match(/^warning: /gm)).toHaveLength(2)
    expect(stdout).toContain('target.insecure_literal_paths')
    expect(stdout).toContain('not loopback')
  })

  it('warns of localhost, which may mean another address first', () => {
    const { code, stdout } = run([write('c.yaml', VALID.replace('127.0.0.1', 'localhost'))])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^warning: .*localhost.*127\.0\.0\.1/)
  })

  it('finds secrets and key files that cannot be read, all of them, without printing a secret', () => {
    write('secret', `${CANARY}\n`)
    write('empty', '\n')
    const clients = [
      ['good', 'file: ./secret'],
      ['empty', 'file: ./empty'],
      ['gone', 'file: ./gone'],
      ['unset', 'env: UNSET_SECRET'],
      ['set', 'env: SET_SECRET'],
    ].map(([name, place]) => `    ${name}: { client_id: ${name}, client_secret: { ${place} } }\n`)
    const keys = VALID.replace('    audience: api\n', '    audience: api\n    jwks_file: ./keys.json\n')
    const endpoint = (line: string) => line.replace(' } }\n', ' }, token_endpoint: https://t.example/token }\n')
    const file = write('c.yaml', `${keys}helper:\n  clients:\n${clients.map(endpoint).join('')}`)
    const { code, stdout, stderr } = run([file], { SET_SECRET: CANARY })
    expect(code).toBe(78)
    expect(stderr).toContain(join(folder, 'keys.json'))
    expect(stderr).toContain(join(folder, 'empty'))
    expect(stderr).toContain(join(folder, 'gone'))
    expect(stderr).toContain('UNSET_SECRET')
    expect(stderr).toMatch(/c\.yaml:4: issuers\[0\]\.jwks_file: /)
    expect(stderr).toMatch(/c\.yaml:9: helper\.clients\.empty\.client_secret: /)
    expect(stderr).toContain('4 problems found.')
    expect(stdout + stderr).not.toContain(CANARY)
  })

  it('finds every kind of file that is missing or empty, in the order of the file', () => {
    write('empty', '')
    const client = 'helper:\n  clients:\n    web: { client_id: web, client_secret: { file: ./gone } }\n'
    const files = '    jwks_seed_file: ./empty\n    jwks_bearer_token_file: ./token\n    ca_file: ./ca.pem\n'
    const tls = 'listen: { tls: { certificate_file: ./a.pem, key_file: ./b.pem } }\n'
    const upstream = 'upstream:\n  url: https://127.0.0.1:1\n  ca_file: ./c.pem\n'
    const file = write('c.yaml', client + VALID.replace(/upstream.*\n/, files + upstream) + tls)
    const { code, stderr } = run([file])
    expect(code).toBe(78)
    expect(stderr.match(/c\.yaml:\d+: [^:]+/g)?.map((line) => line.replace(/^.*c\.yaml:/, ''))).toEqual([
      '3: helper.clients.web.client_secret',
      '7: issuers[0].jwks_seed_file',
      '8: issuers[0].jwks_bearer_token_file',
      '9: issuers[0].ca_file',
      '12: upstream.ca_file',
      '13: listen.tls.certificate_file',
      '13: listen.tls.key_file',
    ])
    expect(stderr).toContain('7 problems found.')
  })

  it('warns of files that are in a pod only, where this is none', () => {
    const issuer = 'issuers:\n  - preset: kubernetes\n    audience: api\nupstream: http://127.0.0.1:3000\n'
    const { code, stdout } = run([write('c.yaml', issuer)])
    const inPod = existsSync('/var/run/secrets/kubernetes.io/serviceaccount/')
    expect(code).toBe(0)
    expect(stdout.match(/^warning: .*serviceaccount\/(token|ca\.crt) is not checked/gm) ?? []).toHaveLength(
      inPod ? 0 : 2,
    )
  })

  it('prints what it all comes to with --effective, in a form that can be read again, without any secret', () => {
    write('secret', `${CANARY}\n`)
    const client = 'helper:\n  clients:\n    web: { client_id: web, client_secret: { file: ./secret } }\n'
    const issuer = 'issuers:\n  - preset: okta\n    issuer: https://e.okta.com/oauth2/default\n    audience: a\n'
    const { code, stdout, stderr } = run([
      '--effective',
      write('c.yaml', `${issuer}${client}upstream: http://127.0.0.1:3000\n`),
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).not.toContain(CANARY)
    expect(parse(stdout)).toMatchObject({
      issuers: [{ preset: 'okta', algorithms: ['RS256'], access_token_claims: [['cid']], clock_tolerance: '30s' }],
      limits: { token_bytes: '16KiB' },
      listen: { helper: '127.0.0.1:8181' },
      helper: { clients: { web: { client_secret: { file: join(folder, 'secret') } } } },
    })
    expect(run(['--effective', write('again.yaml', stdout)]).stdout).toBe(stdout)
  })

  it('counts all problems, also those that are too many to show', () => {
    const rules = Array.from({ length: 60 }, (_, i) => `  - { name: r${i}, exact: [x] }\n`).join('')
    const { stderr } = run([write('c.yaml', `${VALID}rules:\n${rules}`)])
    expect(stderr).toContain('10 more problems are not shown.\n60 problems found.\n')
  })

  it.each([
    ['an unknown flag', ['--online']],
    ['a second file', ['a.yaml', 'b.yaml']],
  ])('refuses %s in one sentence and exits with 64', (_what, argv) => {
    const { code, stdout, stderr } = run(argv)
    expect(code).toBe(64)
    expect(stdout).toBe('')
    expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  })
})
