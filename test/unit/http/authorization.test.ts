import { describe, expect, it } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import { readBearerToken } from '../../../src/http/authorization.ts'

function codeOf(...values: string[]): string | undefined {
  try {
    readBearerToken(values.flatMap((value) => ['Authorization', value]))
  } catch (error) {
    return (error as CodedError).code
  }
  return undefined
}

describe('the bearer token', () => {
  it.each(['Bearer abc.def.ghi', 'bearer abc.def.ghi', 'BEARER  abc.def.ghi', 'bEaReR abc.def.ghi '])(
    'is read from "%s"',
    (value) => {
      expect(readBearerToken(['authorization', value])).toBe('abc.def.ghi')
    },
  )

  it.each(['Basic dXNlcjpwYXNz', 'DPoP abc', 'Bearerabc', 'abc.def.ghi', ''])('is absent in "%s"', (value) => {
    expect(readBearerToken(['Authorization', value])).toBeUndefined()
  })

  it('is absent without the field, and in fields that only look like it', () => {
    expect(readBearerToken(['Proxy-Authorization', 'Bearer a', 'Authorization_', 'Bearer b'])).toBeUndefined()
  })

  it.each(['Bearer', 'Bearer ', 'Bearer a b', 'Bearer a,b', 'Bearer a, Bearer b', 'Bearer a\tb'])(
    'is malformed in "%s"',
    (value) => {
      expect(codeOf(value)).toBe('credentials_malformed')
    },
  )

  it('is ambiguous when there are two fields, whatever they hold', () => {
    expect(codeOf('Bearer a', 'Bearer a')).toBe('credentials_ambiguous')
    expect(codeOf('Basic a', 'Bearer b')).toBe('credentials_ambiguous')
  })
})
