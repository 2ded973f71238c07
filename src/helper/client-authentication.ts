import { createPrivateKey, type JsonWebKey, type KeyObject, type webcrypto } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import { credentialsUnavailable } from './grant-errors.ts'
import type { Rotation } from './rotation.ts'

export type SecretEncoding = 'form' | 'raw'

/** How a client authenticates at its issuer. */
export type ClientAuthenticationOptions =
  | { readonly method: 'none' | 'tls_client_auth' }
  | { readonly method: 'client_secret_post'; readonly secret: Rotation }
  | { readonly method: 'client_secret_basic'; readonly secret: Rotation; readonly encoding: SecretEncoding }
  | {
      readonly method: 'private_key_jwt'
      readonly key: Rotation
      readonly keyId: string | undefined
      readonly algorithm: string | undefined
      /** Whom the assertion is for: `issuer`, `token_endpoint`, or another text. */
      readonly audience: string
    }

/** One way to authenticate one request. */
export interface Attempt {
  readonly apply: oauth.ClientAuth
  /** The issuer did not refuse it. */
  accepted(): void
}

export interface ClientAuthentication {
  readonly method: ClientAuthenticationOptions['method']
  /**
   * The ways to authenticate one request, to be tried in this order: the present credentials, and after a rotation those
   * before.
   *
   * @throws GrantError `credentials_unavailable`
   */
  attempts(): readonly Attempt[]
}

/** Creates the authentication of one client. Its files are read for every request. */
export function createClientAuthentication(options: ClientAuthenticationOptions): ClientAuthentication {
  const { method } = options
  switch (options.method) {
    case 'none':
    case 'tls_client_auth':
      return { method, attempts: () => [{ apply: oauth.None(), accepted: () => undefined }] }
    case 'client_secret_post':
      return { method, attempts: () => attemptsOf(options.secret, oauth.ClientSecretPost) }
    case 'client_secret_basic':
      return { method, attempts: () => attemptsOf(options.secret, (secret) => basic(secret, options.encoding)) }
    case 'private_key_jwt':
      return { method, attempts: () => attemptsOf(options.key, (text) => assertion(text, options)) }
  }
}

function attemptsOf(rotation: Rotation, create: (text: string) => oauth.ClientAuth): Attempt[] {
  return rotation.read().map((text) => ({ apply: create(text), accepted: () => rotation.accepted(text) }))
}

/**
 * RFC 6749 §2.3.1: id and secret are form-encoded before they are joined. Written as WHATWG URL §5.2 says, which leaves more
 * characters alone than the library does: many issuers do not decode.
 */
function basic(secret: string, encoding: SecretEncoding): oauth.ClientAuth {
  const encode = encoding === 'raw' ? (text: string) => text : formEncode
  return (_server, { client_id: id }, _body, headers) => {
    const credentials = Buffer.from(`${encode(id)}:${encode(secret)}`, 'utf8').toString('base64')
    headers.set('authorization', `Basic ${credentials}`)
  }
}

function formEncode(text: string): string {
  return new URLSearchParams([['', text]]).toString().slice(1)
}

type AssertionOptions = Extract<ClientAuthenticationOptions, { method: 'private_key_jwt' }>

/** RFC 7523 §3; with the issuer as its one audience unless told otherwise (RFC 7523bis). A fresh `jti` each time, 60 s. */
function assertion(text: string, { audience, keyId, algorithm }: AssertionOptions): oauth.ClientAuth {
  return async (server, client, body, headers) => {
    const { key, kid, alg } = importSigningKey(text, algorithm)
    const apply = oauth.PrivateKeyJwt(toPrivateKey(key, keyId ?? kid), {
      [oauth.modifyAssertion](header, payload) {
        // The library knows Ed25519 by its new name alone (RFC 9864).
        header['alg'] = alg
        payload['aud'] = toAudience(audience, server)
      },
    })
    await apply(server, client, body, headers)
  }
}

function toPrivateKey(key: webcrypto.CryptoKey, kid: string | undefined): oauth.PrivateKey {
  return kid === undefined ? { key } : { key, kid }
}

function toAudience(audience: string, server: oauth.AuthorizationServer): string {
  if (audience === 'issuer') return server.issuer
  if (audience === 'token_endpoint') return server.token_endpoint ?? server.issuer
  return audience
}

interface SigningKey {
  readonly key: webcrypto.CryptoKey
  readonly kid: string | undefined
  readonly alg: string
}

/**
 * Reads a private key, PEM or JWK.
 *
 * @param algorithm - of the signatures; by default `alg` of the JWK, or what the kind of the key suggests
 * @throws GrantError `credentials_unavailable` for anything that is no private key for that algorithm
 */
export function importSigningKey(text: string, algorithm: string | undefined): SigningKey {
  const { key, alg, kid } = parseKey(text)
  const wanted = algorithm ?? alg ?? suggestAlgorithm(key)
  try {
    const parameters = PARAMETERS[wanted]
    if (parameters === undefined) throw new TypeError(wanted)
    return { key: key.toCryptoKey(parameters, false, ['sign']), kid, alg: wanted }
  } catch {
    // The messages of the library could quote the key.
    throw credentialsUnavailable(`the private key is not one for ${wanted}`)
  }
}

function parseKey(text: string): { key: KeyObject; alg: string | undefined; kid: string | undefined } {
  try {
    if (!text.trimStart().startsWith('{')) return { key: createPrivateKey(text), alg: undefined, kid: undefined }
    const jwk = JSON.parse(text) as JsonWebKey
    const ifText = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined)
    const key = createPrivateKey({ key: jwk, format: 'jwk' })
    return { key, alg: ifText(jwk['alg']), kid: ifText(jwk['kid']) }
  } catch {
    throw credentialsUnavailable('the key file holds no private key in PEM or JWK form')
  }
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }

function suggestAlgorithm({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string {
  if (type === 'rsa') return 'RS256'
  if (type === 'rsa-pss') return 'PS256'
  if (type === 'ec') return CURVES[details?.namedCurve ?? ''] ?? 'ES256'
  // Of its two names, the one that more issuers know.
  return type === 'ed25519' ? 'EdDSA' : 'RS256'
}

const rsa = (name: string, bits: number) => ({ name, hash: `SHA-${bits}` })
const PARAMETERS: Readonly<Record<string, webcrypto.RsaHashedImportParams | webcrypto.EcKeyImportParams | string>> = {
  RS256: rsa('RSASSA-PKCS1-v1_5', 256),
  RS384: rsa('RSASSA-PKCS1-v1_5', 384),
  RS512: rsa('RSASSA-PKCS1-v1_5', 512),
  PS256: rsa('RSA-PSS', 256),
  PS384: rsa('RSA-PSS', 384),
  PS512: rsa('RSA-PSS', 512),
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  ES384: { name: 'ECDSA', namedCurve: 'P-384' },
  ES512: { name: 'ECDSA', namedCurve: 'P-521' },
  EdDSA: 'Ed25519',
  Ed25519: 'Ed25519',
}
