import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../../src/config/load.ts'
import { ConfigError, type Problem } from '../../../src/errors.ts'

const ENV = {
  BEARWARD_ISSUER: 'https://t.example/',
  BEARWARD_AUDIENCE: 'api',
  BEARWARD_UPSTREAM: 'http://127.0.0.1:3000',
}
const VALID =
  'issuers:\n  - issuer: https://f.example/\n    audience: api\nupstream:\n  url: http://127.0.0.1:1\n  connections: 2\n'

const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'bearward.yaml')
writeFileSync(file, VALID)

function problemsOf(options: Parameters<typeof loadConfig>[0]): readonly Problem[] {
  try {
    loadConfig(options)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error('the configuration was accepted')
}

describe('without a file', () => {
  it('the environment describes one issuer', () => {
    const { issuers, upstream } = loadConfig({ env: { ...ENV, BEARWARD_JWKS_URI: 'https://t.example/keys' } })
    expect(issuers).toHaveLength(1)
    expect(issuers[0]).toMatchObject({ issuer: 'https://t.example/', audience: { values: ['api'] }, name: 't.example' })
    expect(issuers[0]?.jwks_uri).toBe('https://t.example/keys')
    expect(upstream.url).toBe('http://127.0.0.1:3000')
  })

  it.each(['a,b', 'a b', ' a , b '])('several audiences may be given: "%s"', (BEARWARD_AUDIENCE) => {
    expect(loadConfig({ env: { ...ENV, BEARWARD_AUDIENCE } }).issuers[0]?.audience.values).toEqual(['a', 'b'])
  })

  it('an empty variable counts as unset', () => {
    const { issuers } = loadConfig({ env: { ...ENV, BEARWARD_JWKS_URI: '' } })
    expect(issuers[0]).not.toHaveProperty('jwks_uri')
    expect(problemsOf({ env: { ...ENV, BEARWARD_AUDIENCE: '' } })[0]?.source).toBe('BEARWARD_AUDIENCE')
  })

  it('problems name the variable and have no line', () => {
    const problems = problemsOf({ env: { BEARWARD_UPSTREAM: 'https://127.0.0.1:1x' } })
    expect(problems.map(({ source, line }) => [source, line])).toEqual([
      ['BEARWARD_ISSUER', undefined],
      ['BEARWARD_AUDIENCE', undefined],
      ['BEARWARD_UPSTREAM', undefined],
    ])
  })
})

describe('beside a file', () => {
  it('variables override what it says, setting by setting', () => {
    const env = {
      BEARWARD_UPSTREAM: 'http://127.0.0.1:3001',
      BEARWARD_PROXY_LISTEN: ':1',
      BEARWARD_OPS_LISTEN: '127.0.0.1:2',
      BEARWARD_HELPER_LISTEN: '[::1]:3',
      BEARWARD_LOG_LEVEL: 'debug',
    }
    const { upstream, listen, telemetry } = loadConfig({ file, env })
    expect(upstream).toMatchObject({ url: 'http://127.0.0.1:3001', connections: 2 })
    expect(listen.proxy).toEqual({ host: '0.0.0.0', port: 1 })
    expect(listen.ops).toEqual({ host: '127.0.0.1', port: 2 })
    expect(listen.helper).toEqual({ host: '::1', port: 3 })
    expect(telemetry).toEqual({ log_level: 'debug', access_log: true })
  })

  it.each(['BEARWARD_ISSUER', 'BEARWARD_AUDIENCE', 'BEARWARD_JWKS_URI'])(
    '%s is refused, and both are named',
    (name) => {
      const [problem, ...others] = problemsOf({ file, env: { [name]: 'https://t.example/' } })
      expect(others).toEqual([])
      expect(problem).toMatchObject({ source: name, path: '' })
      expect(problem?.line).toBeUndefined()
      expect(problem?.problem).toContain(file)
    },
  )

  it('a value that is no good is the problem of its variable, not of a line', () => {
    const problems = problemsOf({ file, env: { BEARWARD_OPS_LISTEN: '9090', BEARWARD_LOG_LEVEL: 'loud' } })
    expect(problems.map(({ source, line }) => [source, line])).toEqual([
      ['BEARWARD_OPS_LISTEN', undefined],
      ['BEARWARD_LOG_LEVEL', undefined],
    ])
  })
})

it('variables that Kubernetes makes up for a Service of this name are no concern', () => {
  const env = { ...ENV, BEARWARD_PORT: 'tcp://10.0.0.1:80', BEARWARD_SERVICE_HOST: '10.0.0.1' }
  expect(loadConfig({ env })).toEqual(loadConfig({ env: ENV }))
})

describe('a setting that is no group', () => {
  it('is not hidden by a variable that would go into it', () => {
    writeFileSync(file, `${VALID}listen: 5\n`)
    const [problem] = problemsOf({ file, env: { BEARWARD_OPS_LISTEN: ':9' } })
    writeFileSync(file, VALID)
    expect(problem).toMatchObject({ line: 7, path: 'listen', problem: 'must be a group of settings.' })
  })
})
