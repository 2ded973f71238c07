import { describe, expect, it } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import { createIdentityEncoder, type IdentityHeader } from '../../../src/gate/identity.ts'
import type { VerifiedToken } from '../../../src/token/verifier.ts'

const limits = { maxHeaderBytes: 1000, maxTotalBytes: 2000 }

function tokenOf(claims: Record<string, unknown>, more: Partial<VerifiedToken> = {}): VerifiedToken {
  return { claims, scopes: [], clientId: undefined, identity: undefined, issuerName: 'main', ...more } as VerifiedToken
}

function encode(header: Partial<IdentityHeader>, claims: Record<string, unknown>): Record<string, string> {
  const headers: IdentityHeader[] = [{ name: 'x-auth-a', path: ['a'], format: 'string', onMissing: 'omit', ...header }]
  const fields = createIdentityEncoder({ prefix: 'x-auth-', defaults: false, headers, ...limits })(tokenOf(claims))
  return Object.fromEntries(Array.from({ length: fields.length / 2 }, (_, i) => [fields[2 * i], fields[2 * i + 1]]))
}

function codeOf(run: () => unknown): string | undefined {
  try {
    run()
  } catch (error) {
    return (error as CodedError).code
  }
  return undefined
}

describe('the default headers', () => {
  it('are subject, issuer, client id, scope and expiry', () => {
    const encoder = createIdentityEncoder({ prefix: 'x-auth-', defaults: true, headers: [], ...limits })
    const token = tokenOf({ sub: 'user-1', iss: 'https://i/', exp: 1234 }, { scopes: ['a', 'b'], clientId: 'web' })
    expect(encoder(token)).toEqual([
      ...['x-auth-subject', 'user-1', 'x-auth-issuer', 'https://i/', 'x-auth-client-id', 'web'],
      ...['x-auth-scope', 'a b', 'x-auth-expires-at', '1234'],
    ])
    expect(encoder(token)).toBe(encoder(token))
  })

  it('are replaced by a configured header of the same name', () => {
    const own = { name: 'x-auth-subject', path: ['oid'], format: 'string', onMissing: 'omit' } as const
    const encoder = createIdentityEncoder({ prefix: 'x-auth-', defaults: true, headers: [own], ...limits })
    expect(encoder(tokenOf({ sub: 'pairwise', oid: 'stable' }))).toEqual(['x-auth-subject', 'stable'])
  })
})

describe('a claim is found', () => {
  it.each([
    [['https://example.com/roles'], { 'https://example.com/roles': 'x' }],
    [['cognito:groups'], { 'cognito:groups': 'x' }],
    [['kubernetes.io', 'pod', 'name'], { 'kubernetes.io': { pod: { name: 'x' } } }],
    [['list', '0'], { list: ['x'] }],
  ])('at %j', (path, claims) => {
    expect(encode({ path }, claims)).toEqual({ 'x-auth-a': 'x' })
  })

  it.each([[['__proto__']], [['constructor', 'name']], [['toString']], [['length']]])(
    'not on a prototype: %j',
    (path) => {
      expect(encode({ path }, { a: 'x' })).toEqual({})
    },
  )
})

describe('a string header', () => {
  it.each([
    ['plain', 'plain'],
    ['with space', 'with space'],
    ['100%', '100%'],
    [42, '42'],
    [true, 'true'],
    [0, '0'],
    ['', ''],
  ])('holds %j as %s', (value, text) => {
    expect(encode({}, { a: value })).toEqual({ 'x-auth-a': text })
  })

  it.each([
    ['José', 'Jos%C3%A9'],
    ['李', '%E6%9D%8E'],
    ['a\r\nX-Admin: true', 'a%0D%0AX-Admin%3A%20true'],
    ['nul\0', 'nul%00'],
    [' padded ', '%20padded%20'],
    ['\ud800 lone', '%EF%BF%BD%20lone'],
  ])('percent-encodes %j, and says so', (value, text) => {
    expect(encode({}, { a: value })).toEqual({ 'x-auth-a': text, 'x-auth-encoded': 'x-auth-a' })
  })

  it.each([[undefined], [null], [['x']], [{ x: 1 }]])('treats %j as missing', (value) => {
    expect(encode({}, { a: value })).toEqual({})
    expect(encode({ onMissing: 'empty' }, { a: value })).toEqual({ 'x-auth-a': '' })
    expect(codeOf(() => encode({ onMissing: 'reject' }, { a: value }))).toBe('claim_missing')
  })
})

describe('a csv header', () => {
  it.each([
    [['a', 'b'], 'a,b'],
    [['a,admin'], 'a%2Cadmin'],
    [['50%', 'two words'], '50%25,two words'],
    [['é\n'], '%C3%A9%0A'],
    [[' a '], '%20a%20'],
    ['one', 'one'],
    [[1, true], '1,true'],
  ])('holds %j as %s', (value, text) => {
    expect(encode({ format: 'csv' }, { a: value })).toEqual({ 'x-auth-a': text })
  })

  it('gives every element back to a reader that splits and decodes', () => {
    const characters = ['a', ',', '%', '%2C', ' ', '"', 'é', '\n', '李', '\u{1f600}', '\\']
    for (let round = 0; round < 2000; round += 1) {
      const elements = Array.from({ length: 1 + (round % 4) }, () =>
        Array.from({ length: 1 + (round % 5) }, () => characters[Math.floor(Math.random() * characters.length)]).join(
          '',
        ),
      )
      const text = encode({ format: 'csv' }, { a: elements })['x-auth-a'] as string
      expect(text).toMatch(/^[\x20-\x7e]*$/)
      expect(text.split(',').map(decodeURIComponent)).toEqual(elements)
    }
  })

  it.each([[[]], [[['nested']]], [[{}]]])('treats %j as missing', (value) => {
    expect(encode({ format: 'csv' }, { a: value })).toEqual({})
  })
})

describe('json headers', () => {
  const value = { groups: ['é', 'a\nb'], n: 1 }

  it('hold the claim as ASCII JSON', () => {
    const text = encode({ format: 'json' }, { a: value })['x-auth-a'] as string
    expect(text).toMatch(/^[\x20-\x7e]*$/)
    expect(JSON.parse(text)).toEqual(value)
  })

  it('hold the claim as base64url of JSON', () => {
    const text = encode({ format: 'base64url-json' }, { a: value })['x-auth-a'] as string
    expect(text).toMatch(/^[\w-]*$/)
    expect(JSON.parse(Buffer.from(text, 'base64url').toString())).toEqual(value)
  })
})

describe('too much', () => {
  it('in one header is refused', () => {
    expect(codeOf(() => encode({}, { a: 'x'.repeat(1001) }))).toBe('identity_too_large')
  })

  it('in all headers together is refused', () => {
    const headers = ['a', 'b', 'c'].map((name): IdentityHeader => ({
      name: `x-auth-${name}`,
      path: ['a'],
      format: 'string',
      onMissing: 'omit',
    }))
    const encoder = createIdentityEncoder({ prefix: 'x-auth-', defaults: false, headers, ...limits })
    expect(codeOf(() => encoder(tokenOf({ a: 'x'.repeat(900) })))).toBe('identity_too_large')
  })
})
