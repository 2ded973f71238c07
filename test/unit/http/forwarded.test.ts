import { describe, expect, it } from 'vitest'
import { addForwardedFields, createTrust, plainAddress, type Peer } from '../../../src/http/forwarded.ts'

const fields = [
  'Host',
  'api.test',
  'X-Forwarded-For',
  '1.1.1.1',
  'x-forwarded-for',
  '2.2.2.2',
  'X-Forwarded-Proto',
  'https',
]

function toForwardedFields(fields: string[], peer: Peer): string[] {
  const headers: string[] = []
  addForwardedFields(headers, fields, peer)
  return headers
}

describe('the forwarding fields', () => {
  it('from an untrusted peer are rebuilt from the connection alone', () => {
    expect(toForwardedFields(fields, { address: '9.9.9.9', trusted: false, scheme: 'http' })).toEqual([
      'x-forwarded-for',
      '9.9.9.9',
      'x-forwarded-proto',
      'http',
      'x-forwarded-host',
      'api.test',
    ])
  })

  it('from a trusted peer are continued', () => {
    expect(toForwardedFields(fields, { address: '9.9.9.9', trusted: true, scheme: 'http' })).toEqual([
      'x-forwarded-for',
      '1.1.1.1, 2.2.2.2, 9.9.9.9',
      'x-forwarded-proto',
      'https',
      'x-forwarded-host',
      'api.test',
    ])
  })
})

describe('trust', () => {
  it('is given to nobody by default', () => {
    expect(createTrust([])('127.0.0.1')).toBe(false)
  })

  it('is given to listed ranges and addresses of both families', () => {
    const isTrusted = createTrust(['10.0.0.0/8', '192.168.1.1', 'fd00::/8'])
    expect(['10.2.3.4', '192.168.1.1', 'fd00::1'].map(isTrusted)).toEqual([true, true, true])
    expect(['11.0.0.1', '192.168.1.2', 'fe80::1'].map(isTrusted)).toEqual([false, false, false])
  })

  it('refuses what is no address', () => {
    expect(() => createTrust(['everyone'])).toThrow('"everyone" is not an address')
  })

  it('sees an IPv4 peer through a dual-stack socket', () => {
    expect(plainAddress('::ffff:10.0.0.1')).toBe('10.0.0.1')
    expect(plainAddress('::1')).toBe('::1')
  })
})
