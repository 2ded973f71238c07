import { describe, expect, it } from 'vitest'
import { CODES, type Code } from '../../../src/errors.ts'
import { toBearerChallenge } from '../../../src/http/challenge.ts'
import { toProblemResponse } from '../../../src/http/problem.ts'

describe('the challenge', () => {
  it('is bare when no credentials came', () => {
    expect(toBearerChallenge('credentials_missing')).toBe('Bearer realm="api"')
  })

  it('names invalid_token for a bad token', () => {
    expect(toBearerChallenge('token_expired')).toBe(
      'Bearer realm="api", error="invalid_token", error_description="The access token expired."',
    )
  })

  it('names the scopes that would do', () => {
    expect(toBearerChallenge('scope_insufficient', 'a b')).toContain('error="insufficient_scope"')
    expect(toBearerChallenge('scope_insufficient', 'a b')).toContain('scope="a b"')
  })

  it('is absent where credentials would not help', () => {
    expect(toBearerChallenge('keys_unavailable')).toBeUndefined()
    expect(toBearerChallenge('target_invalid')).toBeUndefined()
    expect(toBearerChallenge('upstream_timeout')).toBeUndefined()
  })
})

describe('every code', () => {
  it.each(Object.keys(CODES) as Code[])('%s has a response with its status, code and request id', (code) => {
    const { status, headers, body } = toProblemResponse(code, 'id-1')
    expect(status).toBe(CODES[code].status)
    expect(JSON.parse(body)).toMatchObject({ status, code, request_id: 'id-1', detail: CODES[code].description })
    expect(headers[headers.indexOf('Content-Length') + 1]).toBe(String(Buffer.byteLength(body)))
    expect(headers.includes('WWW-Authenticate')).toBe(status === 401 || CODES[code].error !== undefined)
    expect(headers.includes('Retry-After')).toBe(status === 503)
  })
})
