import { describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import type { HelperClient } from '../../../src/helper/clients.ts'
import { readGrant, toParameters, type GrantName } from '../../../src/helper/grants.ts'
import type { TokenRequest } from '../../../src/helper/request.ts'

const ALL: GrantName[] = ['refresh_token', 'authorization_code', 'device_code', 'client_credentials', 'token_exchange']
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

interface Lists {
  scopes?: string[]
  audiences?: string[]
  resources?: string[]
}

function clientWith({ scopes, audiences, resources }: Lists = {}): HelperClient {
  const toSet = (values: string[] | undefined) => values && new Set(values)
  const allowed = {
    grants: new Set(ALL),
    redirectUris: ['https://a.example/cb'],
    scopes: toSet(scopes),
    audiences: toSet(audiences),
    resources: toSet(resources),
  }
  return { allowed, isPublic: false } as unknown as HelperClient
}

function request(parameters: Record<string, string>, lists: Lists = {}): TokenRequest {
  return {
    parameters: new Map(Object.entries(parameters)),
    resources: lists.resources ?? [],
    audiences: lists.audiences ?? [],
  }
}

const sent = (tokenRequest: TokenRequest) => [...toParameters(readGrant(tokenRequest, clientWith()))]

function codeOf(run: () => unknown): string {
  try {
    run()
    return 'ok'
  } catch (error) {
    if (error instanceof GrantError) return `${error.code} ${error.error}`
    throw error
  }
}

describe('what is sent to the issuer', () => {
  it('of a refresh', () => {
    const read = request({ grant_type: 'refresh_token', refresh_token: 'r', scope: 'a b' }, { resources: ['x', 'y'] })
    expect(sent(read)).toEqual([
      ['refresh_token', 'r'],
      ['grant_type', 'refresh_token'],
      ['scope', 'a b'],
      ['resource', 'x'],
      ['resource', 'y'],
    ])
  })

  it('of a code: the nonce and whatever else the caller invents stay here', () => {
    const verifier = 'v'.repeat(43)
    const read = request({
      grant_type: 'authorization_code',
      code: 'c',
      redirect_uri: 'https://a.example/cb',
      code_verifier: verifier,
      nonce: 'n',
      client_id: 'other',
      client_secret: 's',
      anything: 'else',
    })
    expect(Object.fromEntries(sent(read))).toEqual({
      grant_type: 'authorization_code',
      code: 'c',
      redirect_uri: 'https://a.example/cb',
      code_verifier: verifier,
    })
  })

  it('of a device code: how long the caller waits stays here', () => {
    const type = 'urn:ietf:params:oauth:grant-type:device_code'
    const read = request({ grant_type: type, device_code: 'd', wait: '30' })
    expect(Object.fromEntries(sent(read))).toEqual({ grant_type: type, device_code: 'd' })
    expect(readGrant(read, clientWith())).toMatchObject({ waitMs: 30_000 })
  })

  it('of a token exchange, several audiences included', () => {
    const read = request(
      { grant_type: EXCHANGE, subject_token: 's', subject_token_type: 't', requested_token_type: 'q' },
      { audiences: ['a', 'b'] },
    )
    expect(sent(read)).toEqual([
      ['subject_token', 's'],
      ['subject_token_type', 't'],
      ['requested_token_type', 'q'],
      ['grant_type', EXCHANGE],
      ['audience', 'a'],
      ['audience', 'b'],
    ])
  })
})

describe('a grant is refused', () => {
  const refresh = { grant_type: 'refresh_token', refresh_token: 'r' }
  it.each<[string, TokenRequest, Lists, string]>([
    ['with a scope beyond the list', request({ ...refresh, scope: 'a b' }), { scopes: ['a'] }, 'invalid_scope'],
    [
      'with a resource beyond the list',
      request(refresh, { resources: ['a', 'b'] }),
      { resources: ['a'] },
      'invalid_target',
    ],
    [
      'with an audience beyond the list',
      request(refresh, { audiences: ['b'] }),
      { audiences: ['a'] },
      'invalid_target',
    ],
    ['when a list is empty', request(refresh, { audiences: ['b'] }), { audiences: [] }, 'invalid_target'],
  ])('%s', (_what, tokenRequest, lists, error) => {
    expect(codeOf(() => readGrant(tokenRequest, clientWith(lists)))).toBe(`parameter_not_allowed ${error}`)
  })

  it.each<[string, Record<string, string>, string]>([
    ['with two audiences', refresh, 'request_invalid invalid_request'],
    ['of a type like a name of an object', { grant_type: 'constructor' }, 'grant_not_supported unsupported_grant_type'],
    ['by its short name', { grant_type: 'device_code' }, 'grant_not_supported unsupported_grant_type'],
    [
      'with an actor of no type',
      { grant_type: EXCHANGE, subject_token: 's', subject_token_type: 't', actor_token: 'a' },
      'request_invalid invalid_request',
    ],
    [
      'with a wait that is no number',
      { grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: 'd', wait: '1.5' },
      'request_invalid invalid_request',
    ],
    [
      'with a wait that is too long',
      { grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: 'd', wait: '121' },
      'request_invalid invalid_request',
    ],
  ])('%s', (_what, parameters, expected) => {
    expect(codeOf(() => readGrant(request(parameters, { audiences: ['a', 'b'] }), clientWith()))).toBe(expected)
  })

  it('unless every scope is on the list', () => {
    const read = request({ ...refresh, scope: 'b  a' })
    expect(codeOf(() => readGrant(read, clientWith({ scopes: ['a', 'b', 'c'] })))).toBe('ok')
  })
})
