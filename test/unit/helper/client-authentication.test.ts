import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import {
  createClientAuthentication,
  importSigningKey,
  type ClientAuthenticationOptions,
} from '../../../src/helper/client-authentication.ts'

const SERVER = { issuer: 'https://issuer.example/', token_endpoint: 'https://issuer.example/token' }
const CLIENT = { client_id: 'client' }
const fixed = (text: string) => ({ read: () => [text], accepted: () => undefined })

/** What one attempt puts into a request. */
async function apply(options: ClientAuthenticationOptions) {
  const [attempt] = createClientAuthentication(options).attempts()
  const body = new URLSearchParams()
  const headers = new Headers()
  await attempt?.apply(SERVER, CLIENT, body, headers)
  return { body, headers }
}

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve })
const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string

describe('an assertion', () => {
  it.each([
    ['RS256', undefined, rsa],
    ['RS384', 'RS384', rsa],
    ['RS512', 'RS512', rsa],
    ['PS256', 'PS256', rsa],
    ['PS384', 'PS384', rsa],
    ['PS512', 'PS512', rsa],
    ['ES256', undefined, ec('P-256')],
    ['ES384', undefined, ec('P-384')],
    ['ES512', undefined, ec('P-521')],
    ['EdDSA', undefined, generateKeyPairSync('ed25519')],
    ['EdDSA', 'EdDSA', generateKeyPairSync('ed25519')],
    ['Ed25519', 'Ed25519', generateKeyPairSync('ed25519')],
  ])('is signed with %s (configured: %s), and verifies', async (alg, algorithm, { privateKey, publicKey }) => {
    const key = fixed(pem(privateKey))
    const { body } = await apply({ method: 'private_key_jwt', key, keyId: 'k', algorithm, audience: 'issuer' })
    const assertion = String(body.get('client_assertion'))
    expect(decodeProtectedHeader(assertion)).toEqual({ alg, kid: 'k' })
    const expected = { issuer: 'client', subject: 'client', audience: SERVER.issuer }
    const { payload } = await jwtVerify(assertion, publicKey, expected)
    expect(payload.aud).toBe(SERVER.issuer)
  })

  it.each([
    ['a key of another kind', pem(rsa.privateKey), 'ES256'],
    ['a curve of another algorithm', pem(ec('P-256').privateKey), 'ES384'],
    ['an algorithm that shares a secret', pem(rsa.privateKey), 'HS256'],
    ['a public key', rsa.publicKey.export({ type: 'spki', format: 'pem' }) as string, 'RS256'],
    ['a public key as a JWK', JSON.stringify(rsa.publicKey.export({ format: 'jwk' })), 'RS256'],
    ['nothing of the kind', '{"kty":', 'RS256'],
  ])('is not made with %s, and the key is not quoted', (_what, text, algorithm) => {
    let message = ''
    try {
      importSigningKey(text, algorithm)
    } catch (error) {
      expect(error).toBeInstanceOf(GrantError)
      message = `${String(error)} ${JSON.stringify((error as GrantError).detail)}`
    }
    expect(message).toMatch(/credentials_unavailable/)
    expect(message).not.toContain(text.slice(30, 60) || text)
  })
})

describe('without an assertion', () => {
  it.each(['none', 'tls_client_auth'] as const)('%s names the client alone', async (method) => {
    const { body, headers } = await apply({ method })
    expect([...body]).toEqual([['client_id', 'client']])
    expect(headers.has('authorization')).toBe(false)
  })

  it('a secret is in the body or in the header, never in both', async () => {
    const post = await apply({ method: 'client_secret_post', secret: fixed('s') })
    expect(Object.fromEntries(post.body)).toEqual({ client_id: 'client', client_secret: 's' })
    expect(post.headers.has('authorization')).toBe(false)
    const basic = await apply({ method: 'client_secret_basic', secret: fixed('s'), encoding: 'form' })
    expect([...basic.body]).toEqual([])
    expect(basic.headers.get('authorization')).toBe(`Basic ${Buffer.from('client:s').toString('base64')}`)
  })
})
