import { describe, expect, it } from 'vitest'
import { Refusal } from '../../../src/errors.ts'
import { checkClaims, readNames, type Claims, type Expectation } from '../../../src/token/claims.ts'
import { createExpectation } from '../../fakes/expectation.ts'

const NOW = 1_800_000_000
const base = { issuer: 'i', audience: { claim: 'aud', values: ['a', 'b'] } } as const

function check(claims: Record<string, unknown>, changes: Partial<Expectation> = {}): string {
  const all: Claims = { aud: 'a', exp: NOW + 60, iat: NOW - 60, ...claims }
  try {
    checkClaims(all, createExpectation({ ...base, ...changes }), NOW * 1000)
    return 'ok'
  } catch (error) {
    if (error instanceof Refusal) return error.code
    throw error
  }
}

describe('claims', () => {
  it.each<[string, Record<string, unknown>, Partial<Expectation>?]>([
    ['ok', {}],
    ['ok', { aud: ['x', 'b'] }],
    ['audience_mismatch', { aud: [] }],
    ['claim_invalid', { aud: [1] }],
    ['claim_missing', { aud: undefined }],
    ['claim_missing', { aud: 'a' }, { audience: { claim: 'azp', values: ['a'] } }],
    ['ok', { aud: undefined, azp: 'a' }, { audience: { claim: 'azp', values: ['a'] } }],
    ['audience_mismatch', { client_id: 'c' }, { audience: { claim: 'client_id', values: ['a'] } }],
    // What calls itself something else than an access token.
    ['id_token_not_accepted', { nonce: 'n' }],
    ['ok', { nonce: 'n', typ: 'Bearer' }],
    ['id_token_not_accepted', { at_hash: 'h' }],
    ['id_token_not_accepted', { c_hash: 'h', typ: 'Bearer' }],
    ['id_token_not_accepted', { token_use: 'id' }],
    ['id_token_not_accepted', { token_use: ['access'] }],
    ['ok', { token_use: 'access' }],
    ['id_token_not_accepted', { typ: 'OFFLINE' }],
    ['ok', { nonce: 'n', at_hash: 'h' }, { kind: 'id_token' }],
    ['id_token_not_accepted', {}, { accessTokenClaims: [['cid']] }],
    ['id_token_not_accepted', { cid: null }, { accessTokenClaims: [['cid']] }],
    ['id_token_not_accepted', { valueOf: undefined }, { accessTokenClaims: [['valueOf'], ['toString']] }],
    ['ok', { cid: 'c' }, { accessTokenClaims: [['cid']] }],
    ['ok', { azp: 'c' }, { accessTokenClaims: [['scp'], ['azp']] }],
    ['id_token_not_accepted', { azp: 'c', nonce: 'n' }, { accessTokenClaims: [['scp'], ['azp']] }],
    ['ok', {}, { accessTokenClaims: [['cid']], kind: 'id_token' }],
    // Times.
    ['token_expired', { exp: NOW - 31 }],
    ['ok', { exp: NOW - 29 }],
    ['claim_invalid', { exp: 1e300 }],
    ['claim_invalid', { exp: 253_402_300_800 }],
    ['claim_invalid', { exp: -1 }],
    ['claim_invalid', { exp: `${NOW + 60}` }],
    ['claim_invalid', { exp: null }],
    ['ok', { exp: NOW + 60.5 }],
    ['claim_missing', { exp: undefined }],
    ['token_from_the_future', { iat: NOW + 31 }],
    // Age.
    ['ok', { iat: NOW - 3600 }, { maxAgeSeconds: 3600 }],
    ['token_too_old', { iat: NOW - 3631 }, { maxAgeSeconds: 3600 }],
    ['claim_missing', { iat: undefined }, { maxAgeSeconds: 3600 }],
    ['token_too_old', { iat: NOW - 60 }, { minIat: NOW - 59 }],
    ['ok', { iat: NOW - 59 }, { minIat: NOW - 59 }],
    ['claim_missing', { iat: undefined }, { minIat: 1 }],
    // Further claims.
    ['claim_missing', {}, { required: [{ path: ['cid'], anyOf: undefined }] }],
    ['claim_missing', { cid: null }, { required: [{ path: ['cid'], anyOf: undefined }] }],
    ['ok', { cid: '' }, { required: [{ path: ['cid'], anyOf: undefined }] }],
    ['claim_not_accepted', { cid: '1' }, { required: [{ path: ['cid'], anyOf: [1] }] }],
    ['ok', { cid: ['x', 1] }, { required: [{ path: ['cid'], anyOf: [1] }] }],
    ['claim_missing', {}, { required: [{ path: ['toString'], anyOf: undefined }] }],
    ['claim_not_accepted', { act: {} }, { forbidden: [['act']] }],
    ['claim_not_accepted', { act: null }, { forbidden: [['act']] }],
    ['claim_invalid', { sub: 5 }],
  ])('%s: %j %j', (code, claims, changes) => {
    expect(check(claims, changes)).toBe(code)
  })
})

describe('roles and permissions', () => {
  it.each<[unknown, string[]]>([
    [
      ['a', 'b', 'a', ''],
      ['a', 'b'],
    ],
    ['a b', ['a b']],
    [{ a: {}, b: 1 }, ['a', 'b']],
    [[1, null, 'a', ['b']], ['a']],
    [undefined, []],
    [null, []],
    [7, []],
  ])('%j are the names %j', (value, names) => {
    expect(readNames({ roles: value }, [['roles']])).toEqual(names)
  })

  it('of several places add up', () => {
    const claims = { realm_access: { roles: ['a'] }, resource_access: { api: { roles: ['b', 'a'] } } }
    expect(readNames(claims, [['realm_access', 'roles'], ['resource_access', 'api', 'roles'], ['__proto__']])).toEqual([
      'a',
      'b',
    ])
  })
})
