import { createHmac } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import { beforeAll, expect, it } from 'vitest'
import { CodedError } from '../../../src/errors.ts'
import { validateIdToken } from '../../../src/helper/id-token.ts'
import { createFakeClock } from '../../fakes/clock.ts'
import { CLIENT_ID, createFakeIssuer, type FakeIssuer } from '../../fakes/helper-client.ts'
import { AUDIENCE, createSigningKey, encode, ISSUER, signJwt } from '../../fakes/signer.ts'

/**
 * ID tokens with every combination of rights and wrongs, judged here and by a certified client library: what passes here must
 * pass there, and what is right in everything must pass in both. (Here more is refused: other audiences, kinds of tokens.)
 */
const key = createSigningKey('RS256', 'current')
const stranger = createSigningKey('RS256', 'current')
const now = Math.floor(Date.now() / 1000)
const NONCE = 'n-1'
const clock = createFakeClock(now * 1000)
let issuer: FakeIssuer

beforeAll(async () => {
  issuer = createFakeIssuer(clock, { algorithms: new Set(['RS256']) })
  issuer.publish([key])
  await issuer.start()
})

/** The first is right, the others are wrong or odd; `undefined` leaves it out. */
const CLAIMS: Readonly<Record<string, readonly unknown[]>> = {
  iss: [ISSUER, 'https://issuer.test', `${ISSUER}/`, 'https://other.test/', [ISSUER], undefined],
  aud: [CLIENT_ID, [CLIENT_ID], [CLIENT_ID, AUDIENCE], [CLIENT_ID, 'x'], 'x', [], ['x'], [[CLIENT_ID]], {}, undefined],
  azp: [undefined, CLIENT_ID, 'x', '', [CLIENT_ID], null],
  sub: ['user-1', '', 7, ['user-1'], undefined, null],
  exp: [now + 600, now + 10, now - 10, now - 100, 0, -1, String(now + 600), 1e300, null, undefined],
  iat: [now, now - 600, now + 10, now + 100, String(now), -5, null, undefined],
  nbf: [undefined, now - 10, now + 10, now + 100, 'x', null],
  nonce: [NONCE, 'n-2', '', 1, [NONCE], undefined],
}
const HEADERS: Readonly<Record<string, readonly unknown[]>> = {
  alg: ['RS256', 'none', 'RS384', 'PS256', 'HS256', 'rs256', '', 1, undefined],
  kid: ['current', undefined, 'other', '', 1],
  typ: ['JWT', undefined, 'at+jwt', 'jwt', 1],
  crit: [undefined, ['exp'], [], 'x'],
  jwk: [undefined, stranger.jwk],
}

/** A generator of its own, so that a failure can be had again. */
function createRandom(seed: number) {
  let state = seed
  return (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

function pick(choices: Readonly<Record<string, readonly unknown[]>>, random: (below: number) => number) {
  return Object.fromEntries(
    Object.entries(choices).map(([name, values]) => [name, values[random(8) > 0 ? 0 : random(values.length)]]),
  )
}

function createIdToken(random: (below: number) => number): string {
  const [claims, header] = [pick(CLAIMS, random), pick(HEADERS, random)]
  const token = signJwt(random(12) > 0 ? key : stranger, claims, header)
  const input = token.slice(0, token.lastIndexOf('.'))
  switch (random(24)) {
    case 0:
      return `${input}.`
    case 1:
      return `${input}.${createHmac('sha256', key.publicKey.export({ type: 'spki', format: 'pem' }))
        .update(input)
        .digest('base64url')}`
    case 2:
      return `${token.slice(0, -6)}AAAAAA`
    case 3:
      return `${encode(header)}.${encode({ ...claims, sub: 'admin' })}.${token.slice(token.lastIndexOf('.') + 1)}`
    default:
      return token
  }
}

async function judgeHere(idToken: string): Promise<boolean> {
  const context = { accepted: issuer.accepted, clientId: CLIENT_ID, trustedAudiences: [AUDIENCE], nonce: NONCE }
  const came = { accessToken: 'opaque', code: undefined, subject: undefined }
  try {
    await validateIdToken(idToken, { ...context, ...came }, clock.now())
    return true
  } catch (error) {
    if (error instanceof CodedError) return false
    throw error
  }
}

async function judgeThere(idToken: string): Promise<boolean> {
  const server = { issuer: ISSUER, jwks_uri: 'https://issuer.test/keys' }
  const client = { client_id: CLIENT_ID, id_token_signed_response_alg: 'RS256', [oauth.clockTolerance]: 30 }
  const body = JSON.stringify({ access_token: 'opaque', token_type: 'bearer', id_token: idToken })
  const response = new Response(body, { headers: { 'content-type': 'application/json' } })
  try {
    await oauth.processAuthorizationCodeResponse(server, client, response, {
      expectedNonce: NONCE,
      requireIdToken: true,
    })
    await oauth.validateApplicationLevelSignature(server, response, {
      [oauth.customFetch]: () => Promise.resolve(Response.json({ keys: [key.jwk] })),
    })
    return true
  } catch {
    return false
  }
}

it('passes here only if a certified library lets it pass, too', async () => {
  const random = createRandom(20_260_401)
  const counts = { both: 0, neither: 0, there: 0 }
  for (let i = 0; i < 4_000; i += 1) {
    const idToken = createIdToken(random)
    const [here, there] = [await judgeHere(idToken), await judgeThere(idToken)]
    if (here && !there) expect.fail(`number ${i} passes here alone: ${idToken}`)
    counts[here ? 'both' : there ? 'there' : 'neither'] += 1
  }
  // Enough of each to mean something.
  expect(counts.both).toBeGreaterThan(200)
  expect(counts.neither).toBeGreaterThan(1_000)
  expect(await judgeHere(createIdToken(() => 100))).toBe(true)
})
