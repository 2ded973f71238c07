/** The one description of the configuration file: shape, units, defaults and text. Types, checks and papers come from it. */
import * as v from 'valibot'
import { url } from './address-fields.ts'
import { claimPath, scalar } from './claim-fields.ts'
import { duration, flag, list, oneOf, pattern, section, size, text } from './fields.ts'
import { claimSettings } from './claim-settings.ts'
import { helper } from './helper-settings.ts'
import { keySettings } from './key-settings.ts'
import { name } from './names.ts'
import { limits, listen, upstream, websocket } from './transport-settings.ts'

const ALGORITHMS = [
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const),
  ...(['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const),
] as const

function explainAlgorithm(word: string): string {
  const known = `Accepted are ${ALGORITHMS.join(', ')}.`
  if (/^hs\d*$/i.test(word)) {
    return `names a symmetric algorithm: whoever can check such a token can make one, so none is accepted. ${known}`
  }
  return /^none$/i.test(word) ? `asks for unsigned tokens, which anybody can make. ${known}` : `is not known. ${known}`
}

const issuer = section('An authorization server whose access tokens are accepted.', {
  name: v.optional(name('Label in logs and metrics. Default: the host of the issuer.')),
  issuer: text(
    'The issuer exactly as its tokens name it in `iss`, slash at the end included: it is compared character by character.',
  ),
  ...claimSettings,
  jwks_uri: v.optional(url('Where the keys are. Default: whatever the metadata of the issuer says.')),
  jwks_file: v.optional(text('A file with the keys (a JWK Set), instead of an address. Read again on every refresh.')),
  discovery_url: v.optional(
    url('Full address of the metadata document, when it is not found below the issuer. Its `issuer` must still match.'),
  ),
  algorithms: v.optional(
    list(
      'Accepted signature algorithms. Fewer are safer: name the one the issuer uses.',
      oneOf('A signature algorithm.', ALGORITHMS, explainAlgorithm),
      1,
    ),
    ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
  ),
  token_types: v.optional(
    list(
      'Accepted values of the `typ` header parameter, compared without case and without `application/`; ' +
        '`absent` stands for a token without one.',
      pattern('A type.', 'a type, such as at+jwt', /^([aA]pplication\/)?[A-Za-z0-9!#$&^_.+-]{1,100}$/),
      1,
    ),
    ['at+jwt', 'JWT', 'absent'],
  ),
  clock_tolerance: v.optional(
    duration(
      'How far the clocks of issuer and sidecar may differ. An expired token lives on for this long.',
      '0s',
      '300s',
    ),
    '30s',
  ),
  ...keySettings,
  insecure_http: v.optional(
    flag('Allow addresses of this issuer without TLS beyond this machine. Whoever is in between can replace the keys.'),
    false,
  ),
})

function needed(names: string, description: string) {
  const all = v.optional(list('Every one of these.', text('A name.', 256), 1))
  const any = v.optional(list('At least one of these.', text('A name.', 256), 1))
  const asksForSome = v.pipe(
    section(description, { all, any }),
    v.check((group) => (group.all ?? group.any) !== undefined, `asks for nothing: list ${names} under "all" or "any".`),
  )
  return v.optional(asksForSome)
}

const rule = section('What requests for some paths need. The most specific path wins; the order means nothing.', {
  name: name('Label in logs and metrics.'),
  exact: v.optional(list('Paths that match as a whole.', text('A path.', 1024), 1)),
  prefix: v.optional(
    list(
      'Paths that match with everything below: /docs matches /docs and /docs/x, not /docsx.',
      text('A path.', 1024),
      1,
    ),
  ),
  methods: v.optional(
    list(
      'Methods the rule is for; absent for all. GET includes HEAD.',
      pattern('A method.', 'an upper-case method', /^[A-Z-]+$/),
      1,
    ),
  ),
  access: v.optional(
    oneOf(
      '`public`: no token is looked at. `optional`: a request without a token passes, one with a bad token does not. ' +
        '`required`: only with a valid token.',
      ['public', 'optional', 'required'],
    ),
    'required',
  ),
  scopes: needed('scopes', 'Scopes a token must have.'),
  roles: needed('roles', 'Roles a token must have, from where `issuers[].roles` says.'),
  permissions: needed('permissions', 'Permissions a token must have, from where `issuers[].permissions` says.'),
  claims: v.optional(
    list(
      'Claims a token must have, each with one of the given values.',
      section('One required claim.', {
        claim: claimPath('Where the value is. Of a list, one element must match.'),
        any_of: list('The accepted values.', scalar('A value.'), 1),
      }),
      1,
    ),
  ),
  insecure_catch_all: v.optional(
    flag(
      'Must be true for a public or optional rule with the prefix /, which opens every path that no other rule names.',
    ),
    false,
  ),
})

const identityHeader = section('One header field for the backend.', {
  header: pattern('Name of the field.', 'a header field name', /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/),
  claim: claimPath('Where the value is.'),
  format: v.optional(
    oneOf(
      '`string`: text, number or boolean, percent-encoded (and listed in {prefix}encoded) unless printable ASCII. ' +
        '`csv`: a list, each element percent-encoded where it holds a comma, "%" or anything but printable ASCII. ' +
        '`json`: JSON in ASCII. `base64url-json`: JSON in base64url.',
      ['string', 'csv', 'json', 'base64url-json'],
    ),
    'string',
  ),
  on_missing: v.optional(
    oneOf(
      'For a claim that is absent or does not fit the format: `omit` the field, send it `empty`, or `reject` the request.',
      ['omit', 'empty', 'reject'],
    ),
    'omit',
  ),
})

const identity = section('How the backend learns who sent a request.', {
  prefix: v.optional(
    pattern(
      'Reserved prefix: every inbound header field that begins with it is removed, in any spelling.',
      'lower-case, ending in "-", with at least 3 characters before',
      /^(?=.{4,61}$)[a-z][a-z0-9]*(-[a-z0-9]+)*-$/,
    ),
    'x-auth-',
  ),
  default_headers: v.optional(
    flag('Set {prefix}subject, issuer, client-id, scope, expires-at, roles and permissions from the token.'),
    true,
  ),
  headers: v.optional(list('Further header fields from claims.', identityHeader, 0, 100), []),
  forward_authorization: v.optional(
    flag("Let the caller's Authorization header field travel on to the backend. By default it stays here."),
    false,
  ),
  max_header_bytes: v.optional(size('Longest value of one field; then 431.', '64B', '64KiB'), '8KiB'),
  max_total_bytes: v.optional(size('All names and values together; then 431.', '256B', '256KiB'), '16KiB'),
})

const credentials = section('Where the access token is in a request.', {
  header: v.optional(
    pattern(
      'The header field. In any other than `authorization` the token stands by itself, without `Bearer`.',
      'a header field name in lower case',
      /^[a-z][a-z0-9-]{1,62}$/,
    ),
    'authorization',
  ),
})

const cors = section('Requests of pages of other origins (CORS).', {
  preflight: v.optional(
    oneOf(
      'An OPTIONS request with Origin and Access-Control-Request-Method carries no token. `forward`: the backend answers ' +
        'it, without an identity. `token`: it needs one like any other.',
      ['forward', 'token'],
    ),
    'forward',
  ),
  origins: v.optional(
    list(
      'Origins whose pages may read refusals. What the backend answers has its own fields.',
      pattern('An origin.', 'an origin such as https://app.example.com', /^https?:\/\/[a-z0-9.-]+(:\d{1,5})?$/),
    ),
    [],
  ),
})

const target = section('Exceptions from the strict reading of request targets.', {
  insecure_allow_semicolon: v.optional(
    flag('Accept ";" in paths. Some backends (servlets) cut off what follows and then serve another path.'),
    false,
  ),
  insecure_allow_encoded_slash: v.optional(
    flag('Accept "%2F" in paths. Some backends read it as "/" and then serve another path.'),
    false,
  ),
  insecure_literal_paths: v.optional(
    flag(
      'Look rules up by the path as it is written alone. Safe only when the backend does not ignore letter case, trim ' +
        'slashes or decode twice.',
    ),
    false,
  ),
})

const drain = section('How the process stops.', {
  delay: v.optional(
    duration('How long it goes on accepting after SIGTERM, while load balancers learn of it.', '0s', '5m'),
    '5s',
  ),
  timeout: v.optional(duration('Time for requests in flight after that; then they are cut.', '1s', '1h'), '20s'),
})

const telemetry = section('What is written down.', {
  log_level: v.optional(
    oneOf('Lines below it are not written.', ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    'info',
  ),
  access_log: v.optional(flag('Write a line for requests that went well, too.'), true),
})

/** The whole file. */
export const schema = section('The configuration of bearward.', {
  issuers: list('The authorization servers whose tokens are accepted.', issuer, 1, 32),
  upstream,
  listen: v.optional(listen, {}),
  rules: v.optional(list('What requests need. Without a matching rule: a valid token.', rule), []),
  identity: v.optional(identity, {}),
  credentials: v.optional(credentials, {}),
  target: v.optional(target, {}),
  limits: v.optional(limits, {}),
  cors: v.optional(cors, {}),
  websocket: v.optional(websocket, {}),
  helper: v.optional(helper, {}),
  drain: v.optional(drain, {}),
  telemetry: v.optional(telemetry, {}),
})

/** The file as parsed: durations in milliseconds, sizes in bytes. */
export type ParsedConfig = v.InferOutput<typeof schema>

/** The configuration as rooms get it: parsed, completed and checked. */
export type Config = Omit<ParsedConfig, 'issuers'> & {
  readonly issuers: readonly (Omit<ParsedConfig['issuers'][number], 'name'> & { readonly name: string })[]
}
