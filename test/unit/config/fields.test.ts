import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { address, url } from '../../../src/config/address-fields.ts'
import { audience, claimPath, instant } from '../../../src/config/claim-fields.ts'
import { count, duration, secret, size } from '../../../src/config/fields.ts'

type Field = v.GenericSchema

const read = (field: Field, input: unknown) => v.parse(field, input)

function refuses(field: Field, input: unknown): boolean {
  return !v.safeParse(field, input).success
}

describe('a duration', () => {
  const field = duration('Text.', '0s', '24h')

  it.each([
    ['250ms', 250],
    ['30s', 30_000],
    ['15m', 900_000],
    ['24h', 86_400_000],
    [0, 0],
  ])('%s becomes %i milliseconds', (input, output) => {
    expect(read(field, input)).toBe(output)
  })

  it.each([30, '30', '1.5s', '-1s', '30 s', '30S', '1h30m', '', null, true])('%j is refused', (input) => {
    expect(refuses(field, input)).toBe(true)
  })

  it('holds its bounds, both included', () => {
    const bounded = duration('Text.', '1s', '1m')
    expect(['1s', '60s', '1m'].map((input) => refuses(bounded, input))).toEqual([false, false, false])
    expect(['999ms', '61s', 0].map((input) => refuses(bounded, input))).toEqual([true, true, true])
  })
})

describe('a size', () => {
  it.each([
    ['512B', 512],
    ['16KiB', 16_384],
    ['1MiB', 1_048_576],
  ])('%s becomes %i bytes', (input, output) => {
    expect(read(size('Text.', '1B', '1MiB'), input)).toBe(output)
  })

  it.each([512, '16K', '16KB', '16kib', '2MiB'])('%j is refused', (input) => {
    expect(refuses(size('Text.', '1B', '1MiB'), input)).toBe(true)
  })
})

describe('an address', () => {
  const field = address('Text.')

  it.each([
    ['127.0.0.1:8080', { host: '127.0.0.1', port: 8080 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    [':65535', { host: '0.0.0.0', port: 65_535 }],
  ])('%s is read', (input, output) => {
    expect(read(field, input)).toEqual(output)
  })

  it.each([8080, '8080', '::1:8080', '127.0.0.1', '127.0.0.1:', '127.0.0.1:65536', 'http://x:1'])(
    '%j is refused',
    (input) => {
      expect(refuses(field, input)).toBe(true)
    },
  )
})

describe('a URL', () => {
  const field = url('Text.')

  it('is kept as it was written', () => {
    expect(read(field, 'https://T.example:443/a/')).toBe('https://T.example:443/a/')
  })

  it.each([
    't.example',
    '/a',
    'ftp://t.example',
    'https://user@t.example',
    'https://:pw@t.example',
    'https://t.example/#a',
  ])('%s is refused', (input) => {
    expect(refuses(field, input)).toBe(true)
  })

  it('is refused without quoting a password in it', () => {
    const result = v.safeParse(field, 'https://user:canary@t.example')
    expect(result.success).toBe(false)
    expect(result.issues?.map(({ message }) => message).join()).not.toContain('canary')
  })
})

describe('a secret', () => {
  const field = secret('Text.')

  it('is a reference to a file or a variable', () => {
    expect(read(field, { file: '/run/secret' })).toEqual({ file: '/run/secret' })
    expect(read(field, { env: 'SECRET' })).toEqual({ env: 'SECRET' })
  })

  it.each([{}, { file: 'a', env: 'B' }, { file: '' }, { file: 1 }, { path: 'a' }, 'text', 5, ['a']])(
    '%j is refused',
    (input) => {
      expect(refuses(field, input)).toBe(true)
    },
  )
})

describe('a path to a claim', () => {
  const field = claimPath('Text.')

  it.each([
    ['org_id', ['org_id']],
    ['cognito:groups', ['cognito:groups']],
    ['https://example.com/roles', ['https://example.com/roles']],
    ['a.b', ['a.b']],
    ['/realm_access/roles', ['realm_access', 'roles']],
    ['/a~1b/m~0n', ['a/b', 'm~n']],
    ['/a~01', ['a~1']],
    [
      ['a', '/b'],
      ['a', '/b'],
    ],
  ])('%j is read', (input, output) => {
    expect(read(field, input)).toEqual(output)
  })

  it.each(['', '/a~2', '/a~', [], [''], ['a', 1], 5])('%j is refused', (input) => {
    expect(refuses(field, input)).toBe(true)
  })
})

it('one text becomes a list of one', () => {
  expect(read(audience('Text.'), 'a')).toEqual({ claim: 'aud', values: ['a'] })
  expect(read(audience('Text.'), ['a', 'b'])).toEqual({ claim: 'aud', values: ['a', 'b'] })
  expect(read(audience('Text.'), { claim: 'azp', values: 'a' })).toEqual({ claim: 'azp', values: ['a'] })
  const bad = [
    [],
    '',
    ['a', ''],
    5,
    {},
    { claim: 'sub', values: 'a' },
    { claim: 'aud' },
    { claim: 'aud', values: 'a', x: 1 },
  ]
  expect(bad.map((input) => refuses(audience('Text.'), input))).toEqual(bad.map(() => true))
})

it('a count is a whole number within its bounds', () => {
  const field = count('Text.', 1, 3)
  expect([1, 3].map((input) => read(field, input))).toEqual([1, 3])
  expect([0, 4, 1.5, '2', NaN].map((input) => refuses(field, input))).toEqual([true, true, true, true, true])
})

it('a moment is RFC 3339 or seconds', () => {
  expect(read(instant('Moment.'), '2026-01-31T12:00:00Z')).toBe(1769860800)
  expect(read(instant('Moment.'), '2026-01-31T13:00:00.5+01:00')).toBe(1769860800)
  expect(read(instant('Moment.'), 1769860800)).toBe(1769860800)
  const bad = ['2026-01-31', '2026-13-31T12:00:00Z', 'yesterday', -1, Number.NaN, null, '1769860800']
  expect(bad.map((input) => refuses(instant('Moment.'), input))).toEqual(bad.map(() => true))
})
