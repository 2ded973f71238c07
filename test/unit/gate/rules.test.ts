import { describe, expect, it } from 'vitest'
import type { Refusal } from '../../../src/errors.ts'
import { createRuleMatcher, type RuleOptions } from '../../../src/gate/rules.ts'
import { readTarget } from '../../../src/http/target.ts'

const base = {
  access: 'required',
  allScopes: [],
  anyScope: [],
  claims: [],
  exact: [],
  prefix: [],
  methods: undefined,
} as const
const rule = (name: string, options: Partial<RuleOptions>): RuleOptions => ({ ...base, name, ...options })
const reading = { maxBytes: 8192, allowSemicolon: false, allowEncodedSlash: false }

function match(rules: RuleOptions[], path: string, method = 'GET', literal = false): string {
  try {
    return createRuleMatcher(rules, literal)(readTarget(path, reading), method).name
  } catch (error) {
    return (error as Refusal).code
  }
}

describe('the rule for a request', () => {
  const rules = [
    rule('root', { exact: ['/'] }),
    rule('docs', { prefix: ['/docs'] }),
    rule('deep', { prefix: ['/docs/deep/er'] }),
    rule('page', { exact: ['/docs/deep'] }),
    rule('write', { prefix: ['/docs'], methods: ['POST', 'PUT'] }),
    rule('accent', { exact: ['/café'] }),
  ]

  it.each([
    ['/', 'root'],
    ['/other', 'default'],
    ['/docs', 'docs'],
    ['/docs/', 'docs'],
    ['/docs/a/b/c', 'docs'],
    ['/docsx', 'default'],
    ['/docs?x=/admin', 'docs'],
    ['/docs/deep', 'page'],
    ['/docs/deep/a', 'docs'],
    ['/docs/deep/er', 'deep'],
    ['/docs/deep/er/a', 'deep'],
    ['/docs/deep/erx', 'docs'],
    ['/caf%C3%A9', 'accent'],
    ['/caf%c3%a9', 'accent'],
  ])('%s is %s', (path, name) => {
    expect(match(rules, path)).toBe(name)
  })

  it('is the one that names the method before the one for all', () => {
    expect(match(rules, '/docs/a', 'POST')).toBe('write')
    expect(match(rules, '/docs/a', 'DELETE')).toBe('docs')
  })

  it('for HEAD is the one for GET, unless HEAD has its own', () => {
    const get = rule('get', { exact: ['/a'], methods: ['GET'] })
    const head = rule('head', { exact: ['/a'], methods: ['HEAD'] })
    expect(match([get], '/a', 'HEAD')).toBe('get')
    expect(match([get, head], '/a', 'HEAD')).toBe('head')
    expect(match([get], '/a', 'POST')).toBe('default')
  })

  it('does not depend on the order in which rules are written', () => {
    expect(match([...rules].reverse(), '/docs/deep')).toBe('page')
    expect(match([...rules].reverse(), '/docs/a', 'POST')).toBe('write')
  })

  it('is the default without any rules', () => {
    expect(match([], '/ADMIN/')).toBe('default')
  })

  it('is found at once among ten thousand', () => {
    const many = Array.from({ length: 10_000 }, (_, i) => rule(`r${i}`, { prefix: [`/p${i}/x`] }))
    const matcher = createRuleMatcher(many, false)
    expect(matcher(readTarget('/p9999/x/y', reading), 'GET').name).toBe('r9999')
  })
})

describe('a path that backends read in different ways', () => {
  const rules = [
    rule('admin', { exact: ['/admin'], allScopes: ['admin'] }),
    rule('open', { prefix: ['/public'], access: 'public' }),
    rule('batch', { exact: ['/v1/items:batch'] }),
  ]

  it.each([
    '/ADMIN',
    '/admin/',
    '/%61dmin',
    '/Admin',
    '/PUBLIC/a',
    '/%70ublic',
    '/admin%3Fx',
    '/admin%23x',
    '/v1/items%3Abatch',
  ])('is refused when a rule depends on it: %s', (path) => {
    expect(match(rules, path)).toBe('target_invalid')
  })

  it.each(['/Orders/', '/%6frders', '/a//b', '/public/A%20B/'])('passes when no rule depends on it: %s', (path) => {
    expect(match(rules, path)).not.toBe('target_invalid')
  })

  it('is taken literally when the operator says the backend does', () => {
    expect(match(rules, '/ADMIN', 'GET', true)).toBe('default')
    expect(match(rules, '/admin/', 'GET', true)).toBe('default')
  })
})
