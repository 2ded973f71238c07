import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startRawUpstream, type RawUpstream } from '../fakes/upstream.ts'

/** What callers try over bare sockets, and what of it reaches the backend: its bytes are looked at, not its parser's view. */
let issuer: AuthorizationServer
let upstream: RawUpstream
let sidecar: FakeSidecar
let seen = 0

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startRawUpstream((socket, received) => {
    if (received.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      rules: [
        { name: 'public', prefix: ['/public'], access: 'public' },
        { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
      ],
      identity: {
        headers: [
          { header: 'x-user', claim: 'sub' },
          { header: 'x-auth-org', claim: 'org_id' },
        ],
      },
    },
  })
  await sidecar.ready()
})
afterEach(() => void (seen = upstream.received().length))
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
})

/** What the backend received since the last test. */
const arrived = () => upstream.received().slice(seen)
const isDone = (text: string) => /\r\n\r\nok$/.test(text) || text.includes('request_id')
const head = (target: string, ...fields: string[]) =>
  `GET ${target} HTTP/1.1\r\nHost: api.test\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`
const bearer = (claims: Record<string, unknown> = {}) =>
  `Authorization: Bearer ${issuer.signAccessToken({ sub: 'alice', ...claims })}`

/** All fields that a backend may take for the identity, by canonical name. */
function identityIn(text: string): string[] {
  return text
    .split('\r\n')
    .map((line) => line.toLowerCase().replace(/^[^:]*/, (name) => name.replaceAll('_', '-')))
    .filter((line) => /^(x-auth-|x-user)/.test(line))
    .filter((line) => !/^x-auth-(issuer|client-id|scope|expires-at):/.test(line) || line.includes('mallory'))
}

const SPELLINGS = [
  'X-Auth-Subject',
  'x-auth-subject',
  'X_Auth_Subject',
  'x-auth_subject',
  'X-AUTH_SUBJECT',
  'X_USER',
  'x-user',
  'X-Auth-Anything',
  'X-Auth-Org',
  'X_Auth_Encoded',
]

describe('an identity that the caller made up', () => {
  it.each(SPELLINGS)('as %s is replaced by the one verified, or absent', async (name) => {
    await sendRaw(sidecar.proxyPort, head('/a', bearer(), `${name}: mallory`, `${name}: mallory`), isDone)
    expect(arrived()).not.toContain('mallory')
    expect(identityIn(arrived())).toEqual(['x-user: alice', 'x-auth-org: org_1', 'x-auth-subject: alice'])
  })

  it.each(SPELLINGS)('as %s does not arrive on a public path', async (name) => {
    await sendRaw(sidecar.proxyPort, head('/public/a', `${name}: mallory`), isDone)
    expect(identityIn(arrived())).toEqual([])
    expect(arrived()).toContain('GET /public/a HTTP/1.1')
  })

  it.each([
    'x-auth-subject',
    'close, X-Auth-Subject',
    'X_Auth_Subject, x-user',
    'x-auth-subject\r\nConnection: x-user',
    'x-request-id, x-forwarded-for',
  ])('cannot be removed by naming it in Connection: %s', async (value) => {
    await sendRaw(sidecar.proxyPort, head('/a', bearer(), `Connection: ${value}`), isDone)
    expect(identityIn(arrived())).toEqual(['x-user: alice', 'x-auth-org: org_1', 'x-auth-subject: alice'])
    expect(arrived()).toMatch(/x-request-id: /i)
    expect(arrived()).toMatch(/x-forwarded-for: 127\.0\.0\.1\r\n/)
  })

  it('in the trailers of a chunked body does not arrive', async () => {
    const chunked = `POST /a HTTP/1.1\r\nHost: api.test\r\n${bearer()}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n1\r\na\r\n0\r\nX-Auth-Subject: mallory\r\nAuthorization: Bearer x\r\n\r\n`
    await sendRaw(sidecar.proxyPort, chunked, isDone)
    expect(arrived()).not.toMatch(/mallory|trailer/i)
    expect(identityIn(arrived())).toHaveLength(3)
  })

  it('in a pipelined second request without a token does not arrive', async () => {
    const { socket, received } = await openRaw(sidecar.proxyPort)
    socket.write(
      head('/a', bearer()) + head('/a', 'X-Auth-Subject: mallory') + head('/public/a', 'X-Auth-Subject: mallory'),
    )
    await expect.poll(received).toMatch(/200 OK[\s\S]*401 Unauthorized[\s\S]*200 OK/)
    socket.destroy()
    expect(arrived()).not.toContain('mallory')
    expect(arrived().match(/GET /g)).toHaveLength(2)
  })

  it.each([
    'X-Forwarded-For: 6.6.6.6',
    'X-Forwarded-Host: evil.example',
    'X_Forwarded_For: 6.6.6.6',
    'Forwarded: for=6.6.6.6',
    'X-Real-IP: 6.6.6.6',
    'X-Original-URL: /admin',
    'X-Rewrite-URL: /admin',
    'X-Forwarded-Prefix: /admin',
    'X-Envoy-External-Address: 6.6.6.6',
    'X-HTTP-Method-Override: DELETE',
  ])('nor does %s from a peer that is not trusted', async (field) => {
    await sendRaw(sidecar.proxyPort, head('/a', bearer(), field), isDone)
    expect(arrived()).not.toMatch(/6\.6\.6\.6|evil|: \/admin/)
  })

  it.each(['Authorization', 'authorization', 'AUTHORIZATION', 'Proxy-Authorization'])(
    'the token itself does not travel on (%s)',
    async (name) => {
      const token = issuer.signAccessToken()
      await sendRaw(sidecar.proxyPort, head('/public/a', `${name}: Bearer ${token}`), isDone)
      expect(arrived()).not.toContain(token)
    },
  )
})

describe('a message with two ends', () => {
  const admin = 'GET /admin HTTP/1.1\r\nHost: api.test\r\nX-Smuggled: 1\r\n\r\n'
  const post = (fields: string[], body: string) =>
    `POST /public/a HTTP/1.1\r\nHost: api.test\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n${body}`
  it.each<[string, string]>([
    ['length and chunks', post(['Content-Length: 4', 'Transfer-Encoding: chunked'], `0\r\n\r\n${admin}`)],
    ['chunks and length', post(['Transfer-Encoding: chunked', 'Content-Length: 4'], `0\r\n\r\n${admin}`)],
    ['two lengths', post(['Content-Length: 0', `Content-Length: ${admin.length}`], admin)],
    ['a list of lengths', post([`Content-Length: 0, ${admin.length}`], admin)],
    ['a length with a plus', post([`Content-Length: +${admin.length}`], admin)],
    ['a length in hexadecimal', post(['Content-Length: 0x1'], admin)],
    ['a length with a minus', post(['Content-Length: -1'], admin)],
    ['a space before the colon', post(['Content-Length : 0', `Content-Length: ${admin.length}`], admin)],
    ['an odd coding', post(['Transfer-Encoding: xchunked'], `0\r\n\r\n${admin}`)],
    ['a coding and chunked', post(['Transfer-Encoding: gzip, chunked'], `0\r\n\r\n${admin}`)],
    ['chunked twice', post(['Transfer-Encoding: chunked', 'Transfer-Encoding: identity'], `0\r\n\r\n${admin}`)],
    ['a vertical tab before chunked', post(['Transfer-Encoding: \x0bchunked'], `0\r\n\r\n${admin}`)],
    ['a folded field', post(['Transfer-Encoding:', ' chunked'], `0\r\n\r\n${admin}`)],
    ['a bare line feed', `POST /public/a HTTP/1.1\nHost: api.test\nContent-Length: 0\n\n${admin}`],
    ['a bare carriage return', post(['X: a\rTransfer-Encoding: chunked'], `0\r\n\r\n${admin}`)],
    ['NUL in a value', post(['X: a\0b', 'Content-Length: 0'], admin)],
    ['a chunk size with a sign', post(['Transfer-Encoding: chunked'], `+0\r\n\r\n${admin}`)],
    ['a chunk size that overflows', post(['Transfer-Encoding: chunked'], `fffffffffffffffff\r\n${admin}`)],
    ['a chunk without carriage return', post(['Transfer-Encoding: chunked'], `1\na\n0\n\n${admin}`)],
    ['an underscore for the dash', post([`Content_Length: ${admin.length}`], admin)],
  ])('%s: no second request reaches the backend unseen', async (_what, bytes) => {
    await sendRaw(sidecar.proxyPort, bytes, (text) => text.includes('request_id'))
    expect(arrived()).not.toMatch(/\/admin|X-Smuggled/)
  })
})

describe('a target that two parsers read differently', () => {
  it.each([
    '/public/../admin',
    '/public/..',
    '/public/%2e%2e/admin',
    '/public/.%2E/admin',
    '/public//admin',
    '//admin',
    '/\\admin',
    '/public\\..\\admin',
    '/public/..;/admin',
    '/public;/../admin',
    '/public%2f..%2fadmin',
    '/public%252f..%252fadmin',
    '/public/%c0%ae%c0%ae/admin',
    '/public/\x01admin',
    '/public#/../admin',
    '/public%00/admin',
    '/PUBLIC/a',
    '/publiC',
    '/public%20/%ff',
    'http://api.test/public',
    'http://evil.example/public',
    '*',
    'public',
    '/public\xe9',
    '/public/%zz',
    '/public?',
    '/public/?x=%00',
    '/public/?/../admin',
  ])('%s: refused, or forwarded byte by byte under the rule decided on', async (target) => {
    const answer = await sendRaw(sidecar.proxyPort, head(target), isDone)
    const [line] = arrived().split('\r\n', 1)
    if (answer.status === 200) {
      expect(line).toBe(`GET ${target} HTTP/1.1`)
      expect(sidecar.lastRequest()).toMatchObject({ rule: 'public' })
      expect(target).toMatch(/^\/public(\/|\?|$)/)
    } else {
      expect([400, 401]).toContain(answer.status)
      expect(line).toBe('')
    }
  })

  it.each([
    ['two hosts', head('/public/a', 'Host: evil.example')],
    ['no host', 'GET /public/a HTTP/1.1\r\n\r\n'],
    ['a host with a path', 'GET /public/a HTTP/1.1\r\nHost: api.test/admin\r\n\r\n'],
    ['a host with a user', 'GET /public/a HTTP/1.1\r\nHost: a@evil.example\r\n\r\n'],
    ['a folded host', 'GET /public/a HTTP/1.1\r\nHost: api.test\r\n evil.example\r\n\r\n'],
  ])('%s: refused', async (_what, bytes) => {
    expect((await sendRaw(sidecar.proxyPort, bytes, isDone)).status).toBe(400)
    expect(arrived()).toBe('')
  })
})
