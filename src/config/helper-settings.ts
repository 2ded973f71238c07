/** The settings of the token helper: whose grants it spends, which ones, and how it authenticates for that. */
import * as v from 'valibot'
import { url } from './address-fields.ts'
import { duration, list, oneOf, pattern, secret, section, text } from './fields.ts'
import { name } from './names.ts'
import { sealing, spending, store } from './spending-settings.ts'

/** The grants that the helper knows, by the names of the configuration, the log and the metrics. */
const GRANTS = ['refresh_token', 'authorization_code', 'device_code', 'client_credentials', 'token_exchange'] as const

const AUTHENTICATIONS = [
  'client_secret_basic',
  'client_secret_post',
  'private_key_jwt',
  'tls_client_auth',
  'none',
] as const

const authentication = {
  client_authentication: v.optional(
    oneOf(
      'How it authenticates at the issuer. `tls_client_auth`: by a certificate, self-signed ones included. `none`: a ' +
        'public client.',
      AUTHENTICATIONS,
    ),
    'client_secret_basic',
  ),
  client_secret: v.optional(
    secret(
      'Where its secret is. Read at every use, so that it can be rotated in place; until the issuer took the new one, ' +
        'the one before is tried once when it is refused.',
    ),
  ),
  secret_encoding: v.optional(
    oneOf(
      'For client_secret_basic. `form`: as RFC 6749 §2.3.1 says. `raw`: for issuers that do not decode it, when the id ' +
        'or the secret holds anything but letters, digits, "-", ".", "_" and "*". Default: form.',
      ['form', 'raw'],
    ),
  ),
  key_file: v.optional(
    text('For private_key_jwt its private key (PEM or JWK), for tls_client_auth that of the certificate (PEM).'),
  ),
  certificate_file: v.optional(text('For tls_client_auth: the certificate to show to the issuer, in PEM.')),
  key_id: v.optional(text('For private_key_jwt: the `kid` of the key. Default: that of the JWK, or none.', 256)),
  key_algorithm: v.optional(
    oneOf(
      'For private_key_jwt: the signature algorithm. Default: `alg` of the JWK, or RS256, ES256, EdDSA … by the key.',
      [
        ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const),
        ...(['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const),
      ],
    ),
  ),
  assertion_audience: v.optional(
    text(
      'For private_key_jwt: whom the assertion is for. `issuer`, `token_endpoint`, or a text. Default: the issuer, with ' +
        '`preset: okta` the token endpoint.',
    ),
  ),
}

const endpoints = {
  token_endpoint: v.optional(url("Overrides the token endpoint of the issuer's metadata.")),
  device_authorization_endpoint: v.optional(url('Overrides the device authorization endpoint of the metadata.')),
  revocation_endpoint: v.optional(url('Overrides the revocation endpoint of the metadata.')),
}

/** RFC 6749 §3.3. */
const SCOPE = /^[!#-[\]-~]{1,256}$/

const allowed = {
  grants: v.optional(
    list(
      'What may be spent. `client_credentials` hands the identity of the client itself to every caller, `token_exchange` ' +
        'lets callers turn tokens into others: list them only for callers that may.',
      oneOf('A grant.', GRANTS),
      1,
    ),
    ['refresh_token', 'authorization_code', 'device_code'],
  ),
  redirect_uris: v.optional(
    list(
      'For authorization_code: the values of `redirect_uri` that callers may send, compared character by character. ' +
        'Without one, no code is spent.',
      pattern('A redirect URI.', 'an absolute URI without a fragment', /^[A-Za-z][A-Za-z0-9+.-]*:[!-"$-~]{1,2000}$/),
      0,
      100,
    ),
    [],
  ),
  scopes: v.optional(
    list('Scopes that callers may ask for. Default: any.', pattern('A scope.', 'one scope', SCOPE), 0),
  ),
  audiences: v.optional(list('Values of `audience` that callers may ask for. Default: any.', text('An audience.'), 0)),
  resources: v.optional(
    list('Values of `resource` (RFC 8707) that callers may ask for. Default: any.', text('A resource.'), 0),
  ),
  token_types: v.optional(
    list(
      'Kinds of access tokens that are handed out, as `token_type` names them, compared without case.',
      pattern('A token type.', 'a token type such as Bearer or DPoP', /^[A-Za-z0-9._-]{1,64}$/),
      1,
    ),
    ['Bearer'],
  ),
}

const validation = {
  trusted_audiences: v.optional(
    list(
      'What may stand in `aud` of an ID token beside the client. The audiences of the issuer are trusted anyway; some ' +
        'issuers, such as Zitadel, name their project there as well.',
      text('An audience.'),
      0,
    ),
    [],
  ),
}

const client = section('An OAuth client whose grants the helper spends.', {
  issuer: v.optional(name('Name of its issuer. Default: the only one.')),
  client_id: text('Its client_id at the issuer, by which callers name it.'),
  ...authentication,
  ...allowed,
  ...validation,
  ...spending,
  ...endpoints,
})

const caller = section('Somebody who may ask for tokens.', {
  shared_secret: v.optional(
    secret(
      'Where the secret is that it shows: as `Authorization: Bearer`, or in the place of the client secret, so that plain ' +
        'OAuth libraries work. At least 16 characters. Read at every use.',
    ),
  ),
  service_accounts: v.optional(
    section(
      'Or the service accounts (or other subjects of an issuer) whose tokens it shows as `Authorization: Bearer`.',
      {
        issuer: v.optional(name('Name of the issuer of these tokens. Default: the only one.')),
        audience: text('What the tokens must be meant for: a name of this helper, and of no API.'),
        subjects: list(
          'The values of `sub`, such as system:serviceaccount:NAMESPACE:NAME.',
          text('A subject.'),
          1,
          1000,
        ),
      },
    ),
  ),
  clients: v.optional(list('The clients it may use, by their names here. Default: all.', name('A client.'), 1)),
})

export const helper = section('The token helper. Off unless a client is configured.', {
  clients: v.optional(v.pipe(v.record(v.string(), client), v.metadata({ section: 'The clients, by name.' })), {}),
  callers: v.optional(
    v.pipe(
      v.record(v.string(), caller),
      v.metadata({
        section:
          'Who may ask for tokens, by name. Without any, everybody who reaches the helper may, which is everybody in the pod ' +
          'for an address on loopback.',
      }),
    ),
    {},
  ),
  timeout: v.optional(duration('For one request to an issuer; then 504.', '1s', '120s'), '10s'),
  validation_wait: v.optional(
    duration(
      'How long the answer of an issuer is held while the keys to validate it are not available; then 502, and the grant ' +
        'is spent for nothing.',
      '0s',
      '120s',
    ),
    '30s',
  ),
  store: v.optional(store),
  sealing: v.optional(sealing),
})
