import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PRESETS } from '../../src/config/claim-settings.ts'
import { renderEffective } from '../../src/config/effective.ts'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'

const EXAMPLES = join(import.meta.dirname, '../../config/examples')
const names = readdirSync(EXAMPLES)

function load(text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  try {
    writeFileSync(join(folder, 'c.yaml'), text)
    return loadConfig({ file: join(folder, 'c.yaml'), env: {} })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function problems(text: string): string[] {
  try {
    load(text)
    return []
  } catch (error) {
    if (error instanceof ConfigError)
      return error.problems.map(({ path, problem, hint }) => `${path}: ${problem} ${hint ?? ''}`)
    throw error
  }
}

describe('an example', () => {
  it('stands for each preset', () => {
    const used = names.flatMap((name) => loadConfig({ file: join(EXAMPLES, name), env: {} }).issuers)
    expect(new Set(used.map(({ preset }) => preset))).toEqual(new Set(PRESETS))
  })

  it.each(names)('%s is valid, and says the same when everything is written out', (name) => {
    const config = loadConfig({ file: join(EXAMPLES, name), env: {} })
    expect(load(renderEffective(config))).toEqual(config)
    expect(readFileSync(join(EXAMPLES, name), 'utf8')).toMatch(
      /^# yaml-language-server: \$schema=\.\.\/bearward\.schema\.json\n/,
    )
  })
})

describe('a preset', () => {
  const issuer = (preset: string, lines: string) =>
    `issuers:\n  - preset: ${preset}\n${lines.replace(/^/gm, '    ')}\nupstream: http://127.0.0.1:3000\n`
  it.each([
    [
      'auth0',
      'issuer: https://t.eu.auth0.com\naudience: a',
      /must end with a slash.*Write https:\/\/t\.eu\.auth0\.com\/\./,
    ],
    [
      'keycloak',
      'issuer: https://s.example/realms/a/\naudience: a',
      /must not end with a slash.*Write https:\/\/s\.example\/realms\/a\./,
    ],
    ['okta', 'issuer: https://example.okta.com\naudience: a', /org authorization server.*custom authorization server/],
    [
      'entra',
      'issuer: https://login.microsoftonline.com/{tenantid}/v2.0\naudience: a',
      /needs tenants: anybody can make a tenant/,
    ],
    [
      'entra',
      'issuer: https://sts.windows.net/8f2a5b1c-0000-4000-8000-1234567890ab\naudience: a',
      /must end with a slash/,
    ],
    ['workos-user-management', 'issuer: https://api.workos.com\naudience: client_1', /needs jwks_uri.*sso\/jwks/],
    ['cognito', 'issuer: https://cognito-idp.eu-central-1.amazonaws.com/p', /audience: is missing/],
    ['cognitoo', 'issuer: https://a.example\naudience: a', /preset: must be one of generic, auth0/],
  ])('%s: a mistake in the issuer is one sentence with the cure', (preset, lines, expected) => {
    const found = problems(issuer(preset, lines))
    expect(found).toHaveLength(1)
    expect(found[0]).toMatch(expected)
  })

  it('gives way to what is written', () => {
    const text = issuer(
      'cloudflare-access',
      'issuer: https://t.cloudflareaccess.com\naudience: a\njwks_file: ./k.json\nalgorithms: [ES256]',
    )
    const [settings] = load(text).issuers
    expect(settings).toMatchObject({ algorithms: ['ES256'], token_types: ['JWT'] })
    expect(settings?.jwks_uri).toBeUndefined()
  })
})
