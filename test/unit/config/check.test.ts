import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../../src/config/load.ts'
import { ConfigError } from '../../../src/errors.ts'

const ISSUER = 'issuers:\n  - issuer: https://t.example/\n    audience: api\n'
const VALID = `${ISSUER}upstream: http://127.0.0.1:3000\n`
const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'bearward.yaml')

/** Every problem as path and sentence. */
function problemsOf(text: string): string[] {
  writeFileSync(file, text)
  try {
    loadConfig({ file, env: {} })
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(({ path, problem }) => `${path}: ${problem}`)
  }
}

describe('the prefix of identity headers', () => {
  it.each(['x-auth-', 'x-user-id-', 'jwt-', 'my-company-auth-', 'x-xfo-'])('may be %s', (prefix) => {
    expect(problemsOf(`${VALID}identity: { prefix: ${prefix} }\n`)).toEqual([])
  })

  it.each(['x-', 'a-', 'ab-', 'x--', 'x---', 'ab--', 'x-auth', 'X-Auth-', 'x_auth-', '-x-auth-', `${'x'.repeat(61)}-`])(
    'cannot be %s, which is too short, too long or misshapen',
    (prefix) => {
      expect(problemsOf(`${VALID}identity: { prefix: ${prefix} }\n`)).toEqual([
        'identity.prefix: must be lower-case, ending in "-", with at least 3 characters before.',
      ])
    },
  )

  it.each([
    ...['content-', 'content-auth-', 'transfer-', 'proxy-', 'proxy-auth-', 'x-forwarded-', 'x-forwarded-user-'],
    ...['access-', 'access-control-', 'accept-', 'authorization-', 'cookie-', 'connection-', 'host-', 'if-match-'],
    ...['origin-', 'range-', 'sec-', 'via-', 'x-real-', 'x-http-method-', 'x-request-', 'forwarded-', 'keep-', 'user-'],
  ])('cannot be %s, which belongs to the protocol', (prefix) => {
    expect(problemsOf(`${VALID}identity: { prefix: ${prefix} }\n`)).toEqual([
      expect.stringMatching(/^identity\.prefix: .* would remove fields of the protocol/),
    ])
  })
})

describe('the upstream', () => {
  const problems = (url: string, listen: string) => problemsOf(`${ISSUER}upstream: '${url}'\nlisten: { ${listen} }\n`)

  it.each([
    ['http://127.0.0.1:8080', 'proxy: 0.0.0.0:8080'],
    ['http://127.0.0.1:8080', "proxy: '[::]:8080'"],
    ['http://[::1]:8080', "proxy: '[::]:8080'"],
    ['http://localhost:8080', 'proxy: 127.0.0.1:8080'],
    ['http://127.0.0.1:8080', 'proxy: localhost:8080'],
    ['http://0.0.0.0:8080', 'proxy: 127.0.0.1:8080'],
    ['http://127.1:8080', 'proxy: 127.0.0.1:8080'],
    ['http://10.0.0.5:8080', 'proxy: 10.0.0.5:8080'],
    ['http://127.0.0.1', 'proxy: 0.0.0.0:80'],
    ['https://127.0.0.1', 'proxy: 0.0.0.0:443'],
    ['h2c://127.0.0.1:8080', 'proxy: 0.0.0.0:8080'],
    ['h2c://[::1]:8080', "proxy: '[::]:8080'"],
    ['h2://127.0.0.1', 'proxy: 0.0.0.0:443'],
    ['http://127.0.0.1:9090', 'proxy: 0.0.0.0:8080'],
    ['http://127.0.0.1:8181', 'proxy: 0.0.0.0:8080'],
  ])('cannot be %s beside listen {%s}: that is bearward itself', (url, listen) => {
    expect(problems(url, listen)).toEqual([expect.stringContaining('bearward would be its own backend')])
  })

  it.each([
    ['http://127.0.0.1:8080', 'proxy: 10.0.0.5:8080'],
    ['http://[::1]:8080', 'proxy: 127.0.0.1:8080'],
    ['http://[::1]:8080', 'proxy: 0.0.0.0:8080'],
    ['http://127.0.0.2:8080', 'proxy: 127.0.0.1:8080'],
    ['http://10.0.0.6:8080', 'proxy: 0.0.0.0:8080'],
    ['http://127.0.0.1:3000', 'proxy: 0.0.0.0:0'],
  ])('may be %s beside listen {%s}', (url, listen) => {
    expect(problems(url, listen)).toEqual([])
  })

  it.each([
    'unix:/run/api.sock',
    `unix:/${'a'.repeat(106)}`,
    'h2c://127.0.0.1:3000',
    'h2://127.0.0.1',
    'https://127.0.0.1:3000',
  ])('may be %s', (url) => {
    expect(problemsOf(`${ISSUER}upstream: ${url}\n`)).toEqual([])
  })

  it.each([
    'http:127.0.0.1:3000',
    'http:///127.0.0.1',
    'http:\\\\127.0.0.1:3000',
    ' http://127.0.0.1:3000',
    'http://127.0.0.1:3000 ',
    'http://127.0.0.1:3000?',
    'http://127.0.0.1:3000/',
    'http://127.0.0.1:3000/api',
    'http://127.0.0.1:0',
    'http://127.0.0.1:65536',
    'http://127.0.0.1:3000#',
    'http://user@127.0.0.1:3000',
    '127.0.0.1:3000',
    'localhost:3000',
    'https://127.0.0.1:3000/',
    'h2c://127.0.0.1:3000/',
    'h2c://127.0.0.1:0',
    'ftp://127.0.0.1',
    'unix:run/api.sock',
    'unix://run/api.sock',
    'unix:/run/../api.sock',
    'unix:/run/100%.sock',
    'unix:/run/api.sock?',
    'unix:/run/a b.sock',
    'unix:/run/',
    'UNIX:/run/api.sock',
    `unix:/${'a'.repeat(107)}`,
  ])('cannot be "%s"', (url) => {
    expect(problemsOf(`${ISSUER}upstream: '${url}'\n`)).toHaveLength(1)
  })
})

describe('a trusted proxy', () => {
  it.each(['10.0.0.0/8', '10.0.0.1', 'fd00::/8', '::1', '0.0.0.0/1'])('may be %s', (range) => {
    expect(problemsOf(`${VALID}listen: { trusted_proxies: ['${range}'] }\n`)).toEqual([])
  })

  it.each(['0.0.0.0/0', '::/0', '::/1', '::ffff:0.0.0.0/96', '::ffff:0:0/90'])('cannot be everybody: %s', (range) => {
    expect(problemsOf(`${VALID}listen: { trusted_proxies: ['${range}'] }\n`)).toEqual([
      expect.stringContaining('would trust everybody'),
    ])
  })

  it.each([
    'fe80::1%eth0',
    'fe80::1%eth0/64',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0',
    'host',
    '10.0.0.0/-1',
  ])('cannot be %s', (range) => {
    expect(problemsOf(`${VALID}listen: { trusted_proxies: ['${range}'] }\n`)).toHaveLength(1)
  })
})

describe('rules', () => {
  const problems = (...rules: string[]) =>
    problemsOf(`${VALID}rules:\n${rules.map((rule) => `  - ${rule}\n`).join('')}`)

  it.each([
    ['{ name: a, exact: [/A] }', '{ name: b, prefix: [/a] }'],
    ['{ name: a, prefix: [/A/b] }', '{ name: b, exact: [/a/B] }'],
    ['{ name: a, exact: [/É] }', '{ name: b, exact: [/%C3%A9] }'],
    ['{ name: a, exact: [/A], methods: [GET] }', '{ name: b, exact: [/a], methods: [POST] }'],
  ])('%s and %s differ by letter case alone', (one, other) => {
    expect(problems(one, other)).toEqual([expect.stringContaining('by letter case alone')])
  })

  it('may hold both spellings in one rule', () => {
    expect(problems('{ name: a, exact: [/A, /a], prefix: [/b, /B] }')).toEqual([])
  })

  it.each(['/%ff', '/a%c3', '/%c0%af', '/%ed%a0%80', '"/\\ud800"'])('cannot be for %s, which is no text', (path) => {
    expect(problems(`{ name: a, exact: [${path}] }`)).toHaveLength(1)
  })
})

describe('a file that is nested beyond reason', () => {
  it.each([
    [20, '[', ']'],
    [800, '[', ']'],
    [2000, '{a: ', '}'],
    [20_000, '[', ']'],
    [20_000, '[', ''],
  ])('is refused in one sentence: %i levels of %s%s', (depth, open, close) => {
    const text = `${VALID}drain: ${open.repeat(depth)}${close.repeat(depth)}\n`
    expect(problemsOf(text)).toEqual([': the file is nested too deeply.'])
  })
})
