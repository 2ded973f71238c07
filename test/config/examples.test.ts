import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { PRESETS } from '../../src/config/claim-settings.ts'
import { renderEffective } from '../../src/config/effective.ts'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { SETTINGS } from '../dev/generate.ts'

const EXAMPLES = join(import.meta.dirname, '../../config/examples')
const names = readdirSync(EXAMPLES).filter((name) => name.endsWith('.yaml'))

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

describe('the schema for editors', () => {
  const issuerSchema = SETTINGS.children.find(({ path }) => path === 'issuers')?.json as {
    items: { required: string[]; anyOf: { required: string[] }[]; properties: object }
  }

  it.each(names)('has no complaint about what %s leaves out', (name) => {
    const { issuers } = parse(readFileSync(join(EXAMPLES, name), 'utf8')) as { issuers: object[] }
    const { required, anyOf, properties } = issuerSchema.items
    for (const written of issuers) {
      expect(Object.keys(written)).toEqual(expect.arrayContaining(required))
      expect(anyOf.some((one) => one.required.every((key) => key in written))).toBe(true)
      expect(Object.keys(properties)).toEqual(expect.arrayContaining(Object.keys(written)))
    }
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
    ['auth0', 'issuer: https://t.auth0.com/\naudience: [a, https://t.auth0.com/userinfo]', /audience: .*every API/],
    ['okta', 'issuer: https://e.okta.com/oauth2/default/\naudience: a', /must not end with a slash.*default\./],
    [
      'entra',
      'issuer: https://login.microsoftonline.com/common/v2.0\naudience: a',
      /names its tenant "common".*Write the id, or \{tenantid\}/,
    ],
    [
      'entra',
      'issuer: https://login.microsoftonline.com/8f2a5b1c-0000-4000-8000-1234567890ab/v2.0/\naudience: a',
      /Write https:\/\/login\.microsoftonline\.com\/8f2a5b1c-0000-4000-8000-1234567890ab\/v2\.0 for version 2/,
    ],
    [
      'entra',
      'issuer: https://login.microsoftonline.com/8f2a5b1c-0000-4000-8000-1234567890ab\naudience: a',
      /Write .*\/v2\.0 for version 2, https:\/\/sts\.windows\.net\/.*\/ for version 1/,
    ],
    [
      'cognito',
      'issuer: https://a.auth.eu-central-1.amazoncognito.com\naudience: a',
      /login pages.*cognito-idp\.REGION/,
    ],
    ['keycloak', 'issuer: https://s.example\naudience: a', /names no realm.*\/realms\/REALM/],
    ['keycloak', 'issuer: https://s.example/realms/a\naudience: account', /every client of the realm.*Audience mapper/],
    [
      'workos-connect',
      'issuer: https://api.workos.com\naudience: a',
      /User Management.*preset: workos-user-management/,
    ],
    ['google', 'audience: a\ntoken_kind: access_token', /token_kind: must be id_token: .* opaque/],
    ['github-actions', 'audience: a', /everybody on GitHub.*repository_owner_id/],
    ['github-actions', 'audience: a\nrequired_claims: [{ claim: repository_owner_id }]', /everybody on GitHub/],
    ['cognitoo', 'issuer: https://a.example\naudience: a', /preset: must be one of generic, auth0/],
  ])('%s: a mistake in the issuer is one sentence with the cure', (preset, lines, expected) => {
    const found = problems(issuer(preset, lines))
    expect(found).toHaveLength(1)
    expect(found[0]).toMatch(expected)
  })

  it.each([
    [
      'cognito',
      'issuer: https://cognito-idp.eu-central-1.amazonaws.com/p',
      [{ claim: ['token_use'], any_of: ['access'] }],
    ],
    ['keycloak', 'issuer: https://s.example/realms/a', [{ claim: ['typ'], any_of: ['Bearer'] }]],
    ['cloudflare-access', 'issuer: https://t.cloudflareaccess.com', [{ claim: ['type'], any_of: ['app'] }]],
  ])('%s: what it requires stays required beside what is written', (preset, lines, own) => {
    const written = (claims: string) => issuer(preset, `${lines}\naudience: a\nrequired_claims: ${claims}`)
    expect(load(written('[{ claim: org, any_of: [1] }]')).issuers[0]?.required_claims).toEqual([
      ...own,
      { claim: ['org'], any_of: [1] },
    ])
    expect(load(written('[]')).issuers[0]?.required_claims).toEqual(own)
    const [{ claim, any_of: values }] = own as [{ claim: string[]; any_of: string[] }]
    expect(load(written(`[{ claim: ${claim[0]}, any_of: [${values[0]}] }]`)).issuers[0]?.required_claims).toEqual(own)
  })

  it.each(['jwks_uri: https://keys.example/', 'discovery_url: https://keys.example/', 'jwks_file: ./keys.json'])(
    'kubernetes: the token of the pod is not shown to anybody but the API server (%s)',
    (source) => {
      const [settings] = load(issuer('kubernetes', `audience: a\n${source}`)).issuers
      expect(settings?.jwks_bearer_token_file).toBeUndefined()
      expect(settings?.ca_file).toBeUndefined()
      expect(settings?.jwks_uri).not.toBe('https://kubernetes.default.svc/openid/v1/jwks')
    },
  )

  it('kubernetes: another issuer still has its keys at the API server, fetched with the token of the pod', () => {
    const [settings] = load(issuer('kubernetes', 'audience: a\nissuer: https://oidc.eks.example/id/1')).issuers
    expect(settings).toMatchObject({
      jwks_uri: 'https://kubernetes.default.svc/openid/v1/jwks',
      jwks_bearer_token_file: '/var/run/secrets/kubernetes.io/serviceaccount/token',
      ca_file: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
    })
  })

  it.each([
    ['https://login.microsoftonline.com/{tenantid}/v2.0', 'https://login.microsoftonline.com/common/v2.0'],
    ['https://login.microsoftonline.us/{tenantid}/v2.0', 'https://login.microsoftonline.us/common/v2.0'],
    ['https://sts.windows.net/{tenantid}/', 'https://login.microsoftonline.com/common'],
  ])('entra: the metadata of %s is below %s', (name, base) => {
    const tenants = 'tenants: [8f2a5b1c-0000-4000-8000-1234567890ab]'
    const [settings] = load(issuer('entra', `issuer: '${name}'\naudience: a\n${tenants}`)).issuers
    expect(settings?.discovery_url).toBe(`${base}/.well-known/openid-configuration`)
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
