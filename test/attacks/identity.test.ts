import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startTarget, type Target } from '../fakes/attack.ts'
import { createRandom, type Random } from '../fakes/random.ts'
import { ok } from '../fakes/recorder.ts'

/**
 * The identity is written here or absent: every spelling in which a caller may send it, on every way to the backend, and
 * lists of fields that nobody thought of.
 */
let target: Target

beforeAll(async () => {
  target = await startTarget({
    rules: [
      { name: 'public', prefix: ['/public'], access: 'public' },
      { name: 'optional', prefix: ['/optional'], access: 'optional' },
    ],
    identity: {
      headers: [
        { header: 'x-user', claim: 'sub' },
        { header: 'x-auth-org', claim: 'org_id' },
        { header: 'x-tenant_name', claim: 'tenant' },
      ],
    },
  })
})
afterEach(() => void (target.backend.answer = ok))
afterAll(() => target.stop())

/** By which a backend may know a field: nothing but its letters and digits count to some. */
const sameName = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, '-')
const isIdentity = (name: string) => /^x-auth-|^x-user$|^x-tenant-name$/.test(sameName(name))
/** All fields of a message that a backend may take for the identity, those of its trailers included. */
function identityIn(request: string): string[] {
  return request
    .split('\r\n')
    .filter((line) => line.includes(': ') && isIdentity(line.slice(0, line.indexOf(':'))))
    .filter((line) => !/^x-auth-(issuer|client-id|scope|expires-at|roles|permissions): (?!.*mallory)/.test(line))
}

const VERIFIED = ['x-user: alice', 'x-auth-org: org_1', 'x-auth-subject: alice']
const token = (claims: Record<string, unknown> = {}) =>
  `Authorization: Bearer ${target.issuer.signAccessToken({ sub: 'alice', ...claims })}\r\n`
const PREFLIGHT = 'Origin: https://app.test\r\nAccess-Control-Request-Method: PUT\r\n'
const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const get = (line: string, fields: string) => `${line} HTTP/1.1\r\nHost: api.test\r\n${fields}\r\n`

/** Ways to the backend, and what of the identity arrives there. */
const WAYS: readonly (readonly [string, (fields: string) => string, readonly string[]])[] = [
  ['with a token', (fields) => get('GET /a', token() + fields), VERIFIED],
  ['before the token', (fields) => get('GET /a', fields + token()), VERIFIED],
  [
    'with a token without the claims',
    (fields) => get('GET /a', token({ org_id: undefined, sub: undefined }) + fields),
    [],
  ],
  [
    'with a token whose claims cannot be written',
    (fields) => get('GET /a', token({ org_id: { a: 1 }, tenant: ['x'], sub: 'alice' }) + fields),
    ['x-user: alice', 'x-auth-subject: alice'],
  ],
  ['on a public path', (fields) => get('GET /public/a', fields), []],
  ['on a public path with a token', (fields) => get('GET /public/a', token() + fields), []],
  ['on an optional path without a token', (fields) => get('GET /optional/a', fields), []],
  ['on an optional path with one', (fields) => get('GET /optional/a', token() + fields), VERIFIED],
  ['with a preflight', (fields) => get('OPTIONS /a', PREFLIGHT + fields), []],
  ['with an OPTIONS', (fields) => get('OPTIONS /a', token() + fields), VERIFIED],
  ['with a HEAD', (fields) => get('HEAD /a', token() + fields), VERIFIED],
  ['with an upgrade', (fields) => get('GET /a', UPGRADE + token() + fields), VERIFIED],
  ['with an upgrade on a public path', (fields) => get('GET /public/a', UPGRADE + fields), []],
  [
    'in trailers',
    (fields) => `${get('POST /a', `${token()}Transfer-Encoding: chunked\r\n`)}1\r\na\r\n0\r\n${fields}\r\n`,
    VERIFIED,
  ],
  [
    'in trailers on a public path',
    (fields) => `${get('POST /public/a', 'Transfer-Encoding: chunked\r\n')}1\r\na\r\n0\r\n${fields}\r\n`,
    [],
  ],
]

const ALIASES = [
  'X-Auth-Subject',
  'x-auth-subject',
  'X-AUTH-SUBJECT',
  'X_Auth_Subject',
  'x_auth_subject',
  'X-Auth_Subject',
  'X.Auth.Subject',
  'X~Auth-Subject',
  'X-Auth-Org',
  'x-auth_org',
  'X-Auth-Roles',
  'X-Auth-Encoded',
  'X-Auth-Never-Heard-Of',
  'X-Auth-',
  'X-User',
  'x_user',
  'X.USER',
  'X-Tenant-Name',
  'x-tenant_name',
  'X_TENANT_NAME',
]

describe.each(WAYS)('an identity that the caller made up, %s', (_way, toBytes, expected) => {
  it.each(ALIASES)('as %s, once or twice, is the verified one or absent', async (name) => {
    for (const fields of [`${name}: mallory\r\n`, `${name}: mallory\r\n${name.toLowerCase()}: mallory\r\n`]) {
      const { backend, statuses } = await target.attack(toBytes(fields), { answers: 1 })
      expect(statuses).toEqual([200])
      expect(backend).toHaveLength(1)
      expect(backend[0]).not.toContain('mallory')
      expect(identityIn(backend[0] as string)).toEqual(expected)
    }
  })
})

describe('Connection', () => {
  it.each([
    'x-auth-subject',
    'close, X-Auth-Subject',
    'X_Auth_Subject,x-user',
    ' x-auth-subject ,, x-user ,',
    'x-auth-subject\r\nConnection: x-user, x-auth-org',
    'keep-alive, x-auth-subject, x-auth-org, x-user, x-request-id, x-forwarded-for, x-forwarded-host, host, authorization',
  ])('cannot take a field of ours away: %j', async (value) => {
    const { backend } = await target.attack(get('GET /a', `${token()}Connection: ${value}\r\n`), { answers: 1 })
    expect(identityIn(backend[0] as string)).toEqual(VERIFIED)
    expect(backend[0]).toMatch(/\r\nx-request-id: [\w-]+\r\n/)
    expect(backend[0]).toMatch(
      /\r\nx-forwarded-for: 127\.0\.0\.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: api\.test\r\n/,
    )
    expect(backend[0]).toMatch(/\r\nHost: api\.test\r\n/)
  })

  it('takes away what is nobody’s but the caller’s', async () => {
    const fields = `${token()}X-Foo: 1\r\nConnection: X-FOO, close\r\nX-Bar: 1\r\n`
    const { backend } = await target.attack(get('GET /a', fields), { answers: 1 })
    expect(backend[0]).not.toMatch(/x-foo/i)
    expect(backend[0]).toContain('\r\nX-Bar: 1\r\n')
  })
})

describe('claims', () => {
  it.each([
    'alice\r\nx-auth-roles: admin',
    'alice\nx-auth-roles: admin',
    'alice\r\n\r\nGET /admin HTTP/1.1\r\nHost: api.test\r\n\r\n',
    'alice\x00admin',
    'alice\u010d\u010ax-auth-roles: admin', // CR and LF to those who keep the low byte alone
    'alice\u560d\u560ax-auth-roles: admin',
    'alice\u2028x-auth-roles: admin',
    'alice\x85admin',
    ' alice ',
    '\ud800',
  ])('cannot split the request: %j', async (sub) => {
    const claims = { sub, org_id: sub, tenant: sub, client_id: sub, scope: sub, roles: [sub] }
    const { backend, statuses } = await target.attack(get('GET /a', token(claims)), { answers: 1 })
    expect(statuses).toHaveLength(1)
    expect(backend.length).toBeLessThanOrEqual(1)
    for (const request of backend) {
      expect(request).not.toMatch(/^x-auth-roles: admin|^GET \/admin/m)
      expect(request).toMatch(/^[\t\r\n\x20-\x7e]*$/)
      expect(request.match(/\r\n\r\n/g)).toHaveLength(1)
    }
  })
})

const PARTS = [
  'x',
  'auth',
  'user',
  'subject',
  'org',
  'tenant',
  'name',
  'roles',
  'foo',
  'request',
  'id',
  'forwarded',
  'for',
  'host',
]
const SIGNS = ['-', '-', '-', '_', '.', '~', '!', '', '--', '-_']

function randomField(random: Random): string {
  const letters = (word: string) => [...word].map((one) => (random.chance(0.3) ? one.toUpperCase() : one)).join('')
  const name = random.many(1 + random.below(4), () => letters(random.pick(PARTS))).join(random.pick(SIGNS))
  if (random.chance(0.15))
    return `Connection: ${random.many(1 + random.below(4), () => letters(random.pick(PARTS))).join(random.pick([',', ', ', '-', ' , ']))}`
  return `${name}: mallory${random.below(10)}`
}

describe('of fields that nobody thought of', () => {
  const random = createRandom()

  it(`none that arrives is an identity but our own (SEED=${random.seed})`, async () => {
    for (let round = 0; round < 150; round += 1) {
      const fields = random
        .many(random.below(12), () => randomField(random))
        .filter((field) => !/^host:/i.test(field))
        .map((field) => `${field}\r\n`)
        .join('')
      const [, toBytes, expected] = random.pick(WAYS.filter(([way]) => !/upgrade|trailers/.test(way)))
      const { backend, statuses } = await target.attack(toBytes(fields), { answers: 1 })
      const seen = { fields, statuses, backend: backend.map(identityIn) }
      expect(seen).toEqual({ fields, statuses: [200], backend: [expected] })
    }
  }, 60_000)
})
