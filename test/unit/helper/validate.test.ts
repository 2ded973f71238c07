import { createHash, createHmac } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import type { GrantRequest } from '../../../src/helper/grants.ts'
import { toSubject } from '../../../src/helper/subjects.ts'
import { validateTokens, type ValidationContext } from '../../../src/helper/validate.ts'
import type { Expectation } from '../../../src/token/claims.ts'
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts'
import { CLIENT_ID, createFakeIssuer, createHelperClient } from '../../fakes/helper-client.ts'
import {
  AUDIENCE,
  createSigningKey,
  encode,
  goodClaims,
  ISSUER,
  signJwt,
  type Alg,
  type SigningKey,
} from '../../fakes/signer.ts'

const key = createSigningKey('RS256', 'current')
/** The same `kid`, by somebody else. */
const stranger = createSigningKey('RS256', 'current')
const OPAQUE = 'opaque-access-token'
const CODE = 'code-1'

let clock: FakeClock
let now = 0
beforeEach(() => {
  clock = createFakeClock(1_800_000_000_000)
  now = clock.now() / 1000
})

const REFRESH: GrantRequest = {
  type: 'refresh_token',
  refreshToken: 'r',
  subject: undefined,
  scope: undefined,
  resources: [],
  audiences: [],
}
const BY_CODE: GrantRequest = {
  type: 'authorization_code',
  code: CODE,
  codeVerifier: undefined,
  redirectUri: 'https://app.test/callback',
  nonce: undefined,
  scope: undefined,
  resources: [],
  audiences: [],
}

const idClaims = (more: Record<string, unknown> = {}) => ({
  iss: ISSUER,
  aud: CLIENT_ID,
  sub: 'user-1',
  iat: now,
  exp: now + 600,
  ...more,
})
const idToken = (more: Record<string, unknown> = {}, header: Record<string, unknown> = {}, by: SigningKey = key) =>
  signJwt(by, idClaims(more), { typ: 'JWT', ...header })
const accessToken = (more: Record<string, unknown> = {}, header: Record<string, unknown> = {}) =>
  signJwt(key, goodClaims(clock.now(), more), header)

interface Setting extends Partial<Omit<ValidationContext, 'client'>> {
  readonly expectation?: Partial<Expectation>
  readonly keys?: readonly SigningKey[]
  readonly client?: Parameters<typeof createHelperClient>[2]
}

/** `ok`, or the check that failed. */
async function validate(response: Record<string, unknown>, setting: Setting = {}): Promise<string> {
  try {
    await validateAll(response, setting)
    return 'ok'
  } catch (error) {
    if (error instanceof GrantError) {
      const { check, claim } = error.detail ?? {}
      return [check, claim].filter((one) => one !== undefined).join(' ')
    }
    throw error
  }
}

async function validateAll(response: Record<string, unknown>, setting: Setting = {}) {
  const { expectation, keys = [key], client, grant = REFRESH, subject } = setting
  const issuer = createFakeIssuer(clock, expectation)
  issuer.publish(keys)
  await issuer.start()
  const tokens = { access_token: OPAQUE, token_type: 'Bearer', ...response }
  return validateTokens(tokens as never, { client: createHelperClient(issuer, clock, client), grant, subject })
}

const halfHash = (size: 256 | 384 | 512, text: string) =>
  createHash(`sha${size}`)
    .update(text)
    .digest()
    .subarray(0, size / 16)
    .toString('base64url')

describe('an ID token', () => {
  it('that is genuine passes, and says what was looked at', async () => {
    expect(await validateAll({ id_token: idToken() })).toEqual({
      idToken: 'valid',
      accessToken: 'not_checked',
      subject: 'not_checked',
      about: toSubject({ iss: ISSUER, sub: 'user-1' }),
    })
  })

  it.each<[string, () => string, string]>([
    ['signed by another key under the same kid', () => idToken({}, {}, stranger), 'id_token signature_invalid'],
    ['signed by a key nobody published', () => idToken({}, { kid: 'other' }), 'id_token key_unknown'],
    [
      'with claims changed after signing',
      () => {
        const [header, , signature] = idToken().split('.')
        return `${header}.${encode(idClaims({ sub: 'admin' }))}.${signature}`
      },
      'id_token signature_invalid',
    ],
    [
      'without a signature',
      () => `${encode({ alg: 'none', typ: 'JWT' })}.${encode(idClaims())}.`,
      'id_token token_malformed',
    ],
    ['that says "none" over a signature', () => idToken({}, { alg: 'none' }), 'id_token algorithm_not_allowed'],
    [
      'by HS256 with the RSA public key as the secret',
      () => {
        const input = `${encode({ alg: 'HS256', kid: 'current', typ: 'JWT' })}.${encode(idClaims())}`
        const pem = key.publicKey.export({ type: 'spki', format: 'pem' })
        return `${input}.${createHmac('sha256', pem).update(input).digest('base64url')}`
      },
      'id_token algorithm_not_allowed',
    ],
    [
      'by HS256 with the client id as the secret',
      () => {
        const input = `${encode({ alg: 'HS256' })}.${encode(idClaims())}`
        return `${input}.${createHmac('sha256', CLIENT_ID).update(input).digest('base64url')}`
      },
      'id_token algorithm_not_allowed',
    ],
    ['that is encrypted', () => 'a.b.c.d.e', 'id_token token_malformed'],
    ['that is no JWT', () => 'id-token', 'id_token token_malformed'],
    ['of another issuer', () => idToken({ iss: 'https://other.test/' }), 'id_token issuer_unknown'],
    ['of the issuer without its slash', () => idToken({ iss: 'https://issuer.test' }), 'id_token issuer_unknown'],
    ['without issuer', () => idToken({ iss: undefined }), 'id_token claim_missing iss'],
    ['for another client', () => idToken({ aud: 'client-2' }), 'id_token audience_mismatch aud'],
    [
      'for a client whose id begins the same',
      () => idToken({ aud: `${CLIENT_ID}0` }),
      'id_token audience_mismatch aud',
    ],
    ['for nobody', () => idToken({ aud: undefined }), 'id_token claim_missing aud'],
    ['for an empty list', () => idToken({ aud: [] }), 'id_token audience_mismatch aud'],
    [
      'for an untrusted party as well',
      () => idToken({ aud: [CLIENT_ID, 'evil'], azp: CLIENT_ID }),
      'id_token audience_mismatch aud',
    ],
    ['with another azp', () => idToken({ azp: 'client-2' }), 'id_token claim_not_accepted azp'],
    ['with several audiences and no azp', () => idToken({ aud: [CLIENT_ID, AUDIENCE] }), 'id_token claim_missing azp'],
    ['that expired', () => idToken({ iat: now - 700, exp: now - 31 }), 'id_token token_expired'],
    ['without exp', () => idToken({ exp: undefined }), 'id_token claim_missing exp'],
    ['with exp in milliseconds', () => idToken({ exp: (now + 600) * 1000 * 1000 }), 'id_token claim_invalid exp'],
    ['with exp as text', () => idToken({ exp: String(now + 600) }), 'id_token claim_invalid exp'],
    ['not valid yet', () => idToken({ nbf: now + 31 }), 'id_token token_not_yet_valid'],
    ['issued in the future', () => idToken({ iat: now + 31 }), 'id_token token_from_the_future'],
    ['issued days ago', () => idToken({ iat: now - 90_000 }), 'id_token token_too_old'],
    ['without iat', () => idToken({ iat: undefined }), 'id_token claim_missing iat'],
    ['that ends before it begins', () => idToken({ iat: now + 20, exp: now + 10 }), 'id_token claim_not_accepted exp'],
    ['without subject', () => idToken({ sub: undefined }), 'id_token claim_missing sub'],
    ['with an empty subject', () => idToken({ sub: '' }), 'id_token claim_invalid sub'],
    ['with a number for a subject', () => idToken({ sub: 7 }), 'id_token claim_invalid sub'],
    ['with a header extension', () => idToken({}, { crit: ['exp'] }), 'id_token critical_header_not_supported'],
    ['that is an access token by its header', () => idToken({}, { typ: 'at+jwt' }), 'id_token token_type_not_accepted'],
    [
      'that is an access token at Cognito',
      () => idToken({ token_use: 'access' }),
      'id_token claim_not_accepted token_use',
    ],
    ['that is an access token at Keycloak', () => idToken({ typ: 'Bearer' }), 'id_token claim_not_accepted typ'],
    ['that is a refresh token at Keycloak', () => idToken({ typ: 'Refresh' }), 'id_token claim_not_accepted typ'],
    [
      'with the at_hash of another access token',
      () => idToken({ at_hash: halfHash(256, 'x') }),
      'id_token claim_not_accepted at_hash',
    ],
    [
      'with the whole hash for at_hash',
      () => idToken({ at_hash: createHash('sha256').update(OPAQUE).digest('base64url') }),
      'id_token claim_not_accepted at_hash',
    ],
    [
      'with an at_hash of a longer digest',
      () => idToken({ at_hash: halfHash(512, OPAQUE) }),
      'id_token claim_not_accepted at_hash',
    ],
    ['with a number for at_hash', () => idToken({ at_hash: 1 }), 'id_token claim_not_accepted at_hash'],
    ['with an empty at_hash', () => idToken({ at_hash: '' }), 'id_token claim_not_accepted at_hash'],
  ])('%s is refused', async (_what, create, check) => {
    expect(await validate({ id_token: create() })).toBe(check)
  })

  it.each<[string, Setting, () => string]>([
    ['with typ absent', {}, () => idToken({}, { typ: undefined })],
    ['of Keycloak', {}, () => idToken({ typ: 'ID', azp: CLIENT_ID })],
    [
      'of Cognito, whose access tokens must say otherwise',
      { expectation: { required: [{ path: ['token_use'], anyOf: ['access'] }] } },
      () => idToken({ token_use: 'id' }),
    ],
    [
      'of an alias of the issuer',
      { expectation: { aliases: ['accounts.test'] } },
      () => idToken({ iss: 'accounts.test' }),
    ],
    ['whose audience is a list of one', {}, () => idToken({ aud: [CLIENT_ID] })],
    ['for the API as well', {}, () => idToken({ aud: [CLIENT_ID, AUDIENCE], azp: CLIENT_ID })],
    [
      'for a trusted party as well',
      { client: { trustedAudiences: ['project-1'] } },
      () => idToken({ aud: [CLIENT_ID, 'project-1'], azp: CLIENT_ID }),
    ],
    ['within the tolerance of the clocks', {}, () => idToken({ iat: now + 29, exp: now + 60 })],
  ])('%s passes', async (_what, setting, create) => {
    expect(await validate({ id_token: create() }, setting)).toBe('ok')
  })

  it('of an API that is no `aud` is not for the API as well', async () => {
    const expectation = { audience: { claim: 'client_id', values: ['project-1'] } } as const
    const token = idToken({ aud: [CLIENT_ID, 'project-1'], azp: CLIENT_ID })
    expect(await validate({ id_token: token }, { expectation })).toBe('id_token audience_mismatch aud')
  })

  it('of an issuer with a tenant in its name is held against its own tid', async () => {
    const tenant = '8f2a5b1c-0000-4000-8000-1234567890ab'
    const other = '7f2a5b1c-0000-4000-8000-1234567890ab'
    const expectation = { issuer: 'https://login.test/{tenantid}/v2.0', tenants: new Set([tenant]) }
    const token = (iss: string, tid: string) => idToken({ iss: `https://login.test/${iss}/v2.0`, tid })
    expect(await validate({ id_token: token(tenant, tenant) }, { expectation })).toBe('ok')
    expect(await validate({ id_token: token(other, other) }, { expectation })).toBe('id_token issuer_unknown')
    expect(await validate({ id_token: token(tenant, other) }, { expectation })).toBe('id_token issuer_unknown')
  })

  it('with a mark of the access tokens of its issuer is refused, but for azp', async () => {
    const expectation = { accessTokenClaims: [['scp'], ['azp']] }
    expect(await validate({ id_token: idToken({ scp: 'a' }) }, { expectation })).toBe('id_token claim_not_accepted scp')
    expect(await validate({ id_token: idToken({ azp: CLIENT_ID }) }, { expectation })).toBe('ok')
  })

  it.each<[Alg, 256 | 384 | 512]>([
    ['RS256', 256],
    ['PS256', 256],
    ['ES256', 256],
    ['RS384', 384],
    ['ES384', 384],
    ['EdDSA', 512],
  ])('signed by %s has an at_hash of %i bits before it is halved', async (alg, size) => {
    const by = createSigningKey(alg)
    const token = (text: string) => signJwt(by, idClaims({ at_hash: halfHash(size, text) }), { typ: 'JWT' })
    expect(await validate({ id_token: token(OPAQUE) }, { keys: [by] })).toBe('ok')
    expect(await validate({ id_token: token('x') }, { keys: [by] })).toBe('id_token claim_not_accepted at_hash')
  })

  it('for a code has the c_hash of that one, if any', async () => {
    const token = (code: string) => idToken({ c_hash: halfHash(256, code) })
    expect(await validate({ id_token: token(CODE) }, { grant: BY_CODE })).toBe('ok')
    expect(await validate({ id_token: token('x') }, { grant: BY_CODE })).toBe('id_token claim_not_accepted c_hash')
    expect(await validate({ id_token: token('x') }, { grant: REFRESH })).toBe('ok')
  })

  it('has the nonce that the caller gives, and must be there then', async () => {
    const grant: GrantRequest = { ...BY_CODE, nonce: 'n-1' }
    expect(await validate({ id_token: idToken({ nonce: 'n-1' }) }, { grant })).toBe('ok')
    expect(await validate({ id_token: idToken({ nonce: 'n-2' }) }, { grant })).toBe('id_token claim_not_accepted nonce')
    expect(await validate({ id_token: idToken() }, { grant })).toBe('id_token claim_missing nonce')
    expect(await validate({}, { grant })).toBe('id_token missing')
    expect(await validate({ id_token: idToken({ nonce: 'n-2' }) }, { grant: BY_CODE })).toBe('ok')
  })

  it('is about whom the grant is known to be about', async () => {
    const subject = toSubject({ iss: ISSUER, sub: 'user-1' })
    expect(await validateAll({ id_token: idToken() }, { subject })).toMatchObject({ subject: 'same' })
    expect(await validate({ id_token: idToken({ sub: 'user-2' }) }, { subject })).toBe(
      'id_token claim_not_accepted sub',
    )
    const expectation = { aliases: ['https://alias.test'] }
    const moved = idToken({ iss: 'https://alias.test' })
    expect(await validate({ id_token: moved }, { subject, expectation })).toBe('id_token claim_not_accepted sub')
    expect(await validateAll({}, { subject })).toMatchObject({ subject: 'not_checked', idToken: 'absent' })
  })
})

describe('an access token', () => {
  it('for this API is verified like that of a request', async () => {
    expect(await validateAll({ access_token: accessToken() })).toMatchObject({ accessToken: 'valid' })
    expect(await validate({ access_token: `${accessToken().slice(0, -8)}AAAAAAAA` })).toBe(
      'access_token signature_invalid',
    )
    expect(await validate({ access_token: accessToken({ exp: now - 31 }) })).toBe('access_token token_expired')
    expect(await validate({ access_token: accessToken({}, { alg: 'none' }) })).toBe(
      'access_token algorithm_not_allowed',
    )
    const unsigned = `${encode({ alg: 'none' })}.${encode(goodClaims(clock.now()))}.`
    expect(await validate({ access_token: unsigned })).toBe('access_token token_malformed')
  })

  it.each<[string, () => string]>([
    ['opaque', () => OPAQUE],
    ['encrypted', () => `${encode({ alg: 'dir', enc: 'A256GCM' })}..b.c.d`],
    ['three parts that are no JWT', () => 'a.b.c'],
    ['for another API', () => `${accessToken({ aud: 'https://graph.test' }).slice(0, -8)}AAAAAAAA`],
    ['of another issuer', () => accessToken({ iss: 'https://other.test/' })],
    ['without issuer', () => accessToken({ iss: undefined })],
  ])('that is %s is not checked, and passes', async (_what, create) => {
    expect(await validateAll({ access_token: create() })).toMatchObject({ accessToken: 'not_checked' })
  })

  it.each<[string, () => string, string]>([
    ['by its at_hash', () => idToken({ at_hash: 'x' }), 'access_token id_token_not_accepted at_hash'],
    ['by its nonce', () => idToken({ nonce: 'x' }), 'access_token id_token_not_accepted nonce'],
    ['by what Cognito writes', () => idToken({ token_use: 'id' }), 'access_token id_token_not_accepted token_use'],
    ['by what Keycloak writes', () => idToken({ typ: 'ID' }), 'access_token id_token_not_accepted typ'],
  ])('that is an ID token, %s, is refused', async (_what, create, check) => {
    expect(await validate({ access_token: create() })).toBe(check)
  })

  it('that lacks the marks of its issuer is refused as an ID token of the client', async () => {
    const expectation = { accessTokenClaims: [['cid']] }
    expect(await validate({ access_token: idToken() }, { expectation })).toBe('access_token id_token_not_accepted cid')
    expect(await validate({ access_token: idToken({ cid: CLIENT_ID }) }, { expectation })).toBe('ok')
  })

  it('for the client itself, without anything that an access token has, is refused as an ID token', async () => {
    expect(await validate({ access_token: idToken() })).toMatch(/^access_token id_token_not_accepted scope, /)
    expect(await validate({ access_token: idToken({ scope: 'a' }) })).toBe('ok')
    expect(await validate({ access_token: idToken({}, { typ: 'at+jwt' }) })).toBe('ok')
  })

  it.each(['a\r\nx: y', 'a\u0000', 'ä'])(
    'with other characters than a header field takes is refused: %j',
    async (text) => {
      expect(await validate({ access_token: text })).toBe('access_token characters')
      expect(await validate({ refresh_token: text })).toBe('refresh_token characters')
    },
  )

  it('that is the ID token itself is refused', async () => {
    const both = idToken()
    expect(await validate({ access_token: both, id_token: both })).toBe('access_token is the id_token')
  })
})

describe('the type of the tokens', () => {
  it.each(['Bearer', 'bearer', 'BEARER'])('%s is accepted', async (type) => {
    expect(await validate({ token_type: type })).toBe('ok')
  })

  it.each(['DPoP', 'mac', 'N_A', ''])('%j is refused', async (type) => {
    expect(await validate({ token_type: type })).toBe('token_type')
  })

  it('may be N_A for a token exchange, whose result may be an ID token', async () => {
    const grant: GrantRequest = {
      type: 'token_exchange',
      parameters: [],
      scope: undefined,
      resources: [],
      audiences: [],
    }
    const response = {
      token_type: 'N_A',
      access_token: idToken({ nonce: 'x' }),
      issued_token_type: 'urn:ietf:params:oauth:token-type:id_token',
    }
    expect(await validate(response, { grant })).toBe('ok')
    expect(await validate({ ...response, token_type: 'Bearer' })).toBe('access_token id_token_not_accepted nonce')
    expect(await validate(response)).toBe('token_type')
  })
})
