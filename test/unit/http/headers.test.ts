import { describe, expect, it } from 'vitest'
import { createRequestFieldFilter, findField, joinField, keepResponseFields } from '../../../src/http/headers.ts'

const options = {
  identityPrefix: 'x-auth-',
  managedNames: ['x-user-id', 'x-request-id'],
  forwardAuthorization: false,
}
const keep = createRequestFieldFilter(options)

describe('of the fields of a request', () => {
  it.each([
    'x-auth-subject',
    'X-AUTH-SUBJECT',
    'x_auth_subject',
    'X-Auth_Subject',
    'X.Auth.Subject',
    'x-auth.subject',
    'X~Auth!Subject',
    'X.User_Id',
    'Content.Length',
    'Transfer.Encoding',
    'X.Forwarded.For',
    'X-Auth-Anything-New',
    'x-user-id',
    'X_User_Id',
    'Authorization',
    'authorization',
    'Proxy-Authorization',
    'Connection',
    'Keep-Alive',
    'Proxy-Connection',
    'TE',
    'Trailer',
    'Transfer-Encoding',
    'Transfer_Encoding',
    'Content_Length',
    'Upgrade',
    'HTTP2-Settings',
    'Expect',
    'Forwarded',
    'X-Forwarded-For',
    'X-Forwarded-Prefix',
    'X_Forwarded_For',
    'X-Real-IP',
    'X-Original-URL',
    'X-Rewrite-URL',
  ])('%s does not travel on', (name) => {
    expect(keep([name, 'value', 'Accept', '*/*'], false)).toEqual(['Accept', '*/*'])
  })

  it('the others travel on with their spelling, order and duplicates', () => {
    const fields = ['Host', 'api', 'X-Foo', '1', 'x-foo', '2', 'Cookie', 'a=b', 'Content-Length', '3']
    expect(keep(fields, false)).toEqual(fields)
  })

  it('a trusted peer’s forwarding fields travel on, but not those that are rebuilt, nor odd spellings', () => {
    const fields = ['X-Forwarded-Prefix', '/a', 'X-Forwarded-For', '1.2.3.4', 'X_Forwarded_Prefix', '/b']
    expect(keep(fields, true)).toEqual(['X-Forwarded-Prefix', '/a'])
  })

  it('Authorization travels on when configured, in its own spelling only', () => {
    const forward = createRequestFieldFilter({ ...options, forwardAuthorization: true })
    expect(forward(['Authorization', 'Bearer x'], false)).toEqual(['Authorization', 'Bearer x'])
  })

  it('those named in Connection stay, in every spelling and however often Connection is sent', () => {
    const fields = ['Connection', 'close, X-Foo', 'x-foo', '1', 'connection', 'X-Bar', 'X-BAR', '2', 'X-Baz', '3']
    expect(keep(fields, false)).toEqual(['X-Baz', '3'])
  })

  it('those a request cannot do without travel on although Connection names them', () => {
    const fields = ['Connection', 'host, cookie, content-type, content-length', 'Host', 'a', 'Cookie', 'b']
    expect(keep(fields, false)).toEqual(['Host', 'a', 'Cookie', 'b'])
  })

  it('a name is classified alike however many others came before', () => {
    for (let i = 0; i < 3000; i += 1) keep([`X-Random-${i}`, ''], false)
    expect(keep(['X-Auth-Late', 'spoofed', 'X-Late', 'fine'], false)).toEqual(['X-Late', 'fine'])
  })
})

describe('random header lists', () => {
  it('never bring a managed name to the backend', () => {
    const pieces = ['x', 'X', 'auth', 'AUTH', 'user', 'id', 'subject', '-', '_', 'Connection', 'close']
    const random = () => pieces[Math.floor(Math.random() * pieces.length)] as string
    for (let round = 0; round < 5000; round += 1) {
      const name = Array.from({ length: 1 + Math.floor(Math.random() * 5) }, random).join('')
      const kept = keep([name, 'spoofed', 'Connection', name], false)
      const canonical = name.toLowerCase().replaceAll('_', '-')
      if (canonical.startsWith('x-auth-') || canonical === 'x-user-id') expect(kept).toEqual([])
    }
  })
})

describe('looking up a field', () => {
  it('counts duplicates and gives the first value', () => {
    expect(findField(['A', '1', 'a', '2', 'b', '3'], 'a')).toEqual({ count: 2, value: '1' })
    expect(findField([], 'a')).toEqual({ count: 0, value: undefined })
  })

  it('joins the values of a list', () => {
    expect(joinField(['A', '1', 'a', '2'], 'a')).toBe('1, 2')
    expect(joinField(['b', '1'], 'a')).toBeUndefined()
  })
})

describe('of the fields of a response', () => {
  it('hop-by-hop ones stay, all others keep their order, spelling, duplicates and bytes', () => {
    const fields = ['Set-Cookie', 'a', 'set-cookie', 'b', 'Transfer-Encoding', 'chunked', 'X', 'caf\xe9']
    expect(keepResponseFields(fields)).toEqual(['Set-Cookie', 'a', 'set-cookie', 'b', 'X', 'caf\xe9'])
  })

  it('those named in Connection stay', () => {
    expect(keepResponseFields(['Connection', 'x-internal', 'X-Internal', '1', 'Y', '2'])).toEqual(['Y', '2'])
  })
})
