import { describe, expect, it } from 'vitest'
import { Refusal } from '../../../src/errors.ts'
import { foldPath, readTarget } from '../../../src/http/target.ts'

const strict = { maxBytes: 8192, allowSemicolon: false, allowEncodedSlash: false }

function reasonOf(raw: string, options = strict): unknown {
  try {
    readTarget(raw, options)
  } catch (error) {
    expect(error).toBeInstanceOf(Refusal)
    expect((error as Refusal).code).toBe('target_invalid')
    return (error as Refusal).detail?.['reason']
  }
  return undefined
}

describe('a request target is refused when it', () => {
  it.each([
    ['is in absolute form', 'http://evil.example/x', 'not in origin form'],
    ['begins with two slashes', '//evil.example/x', 'not in origin form'],
    ['is the asterisk', '*', 'not in origin form'],
    ['is empty', '', 'not in origin form'],
    ['holds a fragment', '/a#b', 'illegal character'],
    ['holds a fragment after the query', '/a?b#c', 'illegal character'],
    ['holds a tab', '/a\tb', 'illegal character'],
    ['holds a NUL', '/a\0', 'illegal character'],
    ['holds a byte above ASCII', '/caf\xe9', 'illegal character'],
    ['holds a dot segment', '/public/../admin', 'dot segment'],
    ['ends in a dot segment', '/public/..', 'dot segment'],
    ['holds a single dot segment', '/public/./admin', 'dot segment'],
    ['holds an encoded dot segment', '/public/%2e%2e/admin', 'ambiguous escape'],
    ['holds a half encoded dot segment', '/public/.%2E/admin', 'ambiguous escape'],
    ['holds a backslash', '/public\\..\\admin', 'backslash'],
    ['holds an encoded backslash', '/public%5cadmin', 'ambiguous escape'],
    ['holds an encoded slash', '/public%2fadmin', 'encoded slash'],
    ['holds an encoded slash in capitals', '/public%2Fadmin', 'encoded slash'],
    ['is encoded twice', '/public/%252e%252e/admin', 'ambiguous escape'],
    ['holds an encoded NUL', '/a%00', 'ambiguous escape'],
    ['holds an encoded line feed', '/a%0a', 'ambiguous escape'],
    ['holds an encoded DEL', '/a%7F', 'ambiguous escape'],
    ['holds a broken escape', '/a%zz', 'broken escape'],
    ['ends within an escape', '/a%4', 'broken escape'],
    ['is not UTF-8 when decoded', '/a%ff', 'escape is not UTF-8'],
    ['holds an overlong slash', '/a%c0%af', 'escape is not UTF-8'],
    ['holds a path parameter', '/admin;x=y', 'semicolon'],
    ['holds an encoded path parameter', '/admin%3bx', 'semicolon'],
  ])('%s', (_what, raw, reason) => {
    expect(reasonOf(raw)).toBe(reason)
  })

  it('is longer than allowed', () => {
    expect(reasonOf(`/${'a'.repeat(10)}`, { ...strict, maxBytes: 10 })).toBe('too long')
  })

  it('hides a dot segment behind an allowed semicolon or slash', () => {
    const lenient = { ...strict, allowSemicolon: true, allowEncodedSlash: true }
    expect(reasonOf('/public/..;/admin', lenient)).toBe('dot segment')
    expect(reasonOf('/public/..%2fadmin', lenient)).toBe('dot segment')
  })
})

describe('a request target is accepted when it', () => {
  it.each([
    '/',
    '/a/b?x=1&y=%2e%2e%2f;',
    '/.well-known/jwks.json',
    '/[...slug]',
    '/v1/items:batch',
    '/a/...',
    '/a%20b',
    '/caf%C3%A9',
    '/100%25',
    "/a(b)!$&'*+,=:@~-_",
    '/proxy/https://example.com/',
    '/a?q=\\',
  ])('is %s', (raw) => {
    expect(readTarget(raw, strict).raw).toBe(raw)
  })
})

describe('the readings of a path', () => {
  it('are all alike for a plain one', () => {
    expect(readTarget('/a/b?c', strict)).toEqual({ raw: '/a/b?c', path: '/a/b', encoded: '/a/b', folded: '/a/b' })
  })

  it('differ where backends decode, fold case, or cut slashes', () => {
    expect(readTarget('/A/%c3%A9/?q', strict)).toEqual({
      raw: '/A/%c3%A9/?q',
      path: '/A/é/',
      encoded: '/A/%C3%A9/',
      folded: '/a/é',
    })
  })

  it.each([
    ['/A//b/', '/a/b'],
    ['/a;x=1/b;y', '/a/b'],
    ['/a?b', '/a'],
    ['/a#b', '/a'],
    ['/', '/'],
    ['//', '/'],
    ['/Ａdmin', '/admin'],
    ['/admın', '/admin'],
    ['/．．／admin', '/../admin'],
    ['/straße', '/strasse'],
  ])('fold %s to %s', (path, folded) => {
    expect(foldPath(path)).toBe(folded)
  })
})
