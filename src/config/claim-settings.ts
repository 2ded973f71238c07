/** The settings of an issuer that say which of its tokens are accepted and what their claims mean. */
import * as v from 'valibot'
import { audience, claimPath, instant, scalar } from './claim-fields.ts'
import { duration, flag, list, oneOf, pattern, section, text } from './fields.ts'

/** Well-known issuers whose peculiarities are built in; presets.ts has their settings. */
export const PRESETS = [
  'generic',
  'auth0',
  'workos-connect',
  'workos-user-management',
  'okta',
  'entra',
  'cognito',
  'keycloak',
  'google',
  'kubernetes',
  'github-actions',
  'pingone',
  'zitadel',
  'fusionauth',
  'cloudflare-access',
] as const

const claimPaths = (description: string) => list(description, claimPath('Where the value is.'), 0, 20)

export const claimSettings = {
  preset: v.optional(
    oneOf(
      'Fills in what is known of a provider, below what is written here. The table of presets shows what each fills in; ' +
        '`check-config --effective` shows the result.',
      PRESETS,
    ),
    'generic',
  ),
  audience: audience(
    'What the token must be meant for: the identifier of this API at the issuer, one of several, or, when the issuer ' +
      'does not name it in `aud`, `{claim: aud, client_id or azp, values: […]}`. A client id only says who asked for ' +
      'the token.',
  ),
  issuer_aliases: v.optional(
    list('Other spellings of the issuer that its tokens use.', text('An issuer, exactly as in `iss`.'), 0, 10),
    [],
  ),
  tenants: v.optional(
    list(
      'For an issuer that holds `{tenantid}`: the tenants whose tokens are accepted, by the value of `tid`.',
      pattern(
        'The id of a tenant.',
        'the id of a tenant (a GUID)',
        /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/,
      ),
      1,
      1000,
    ),
  ),
  insecure_any_tenant: v.optional(
    flag('For an issuer that holds `{tenantid}`: accept every tenant. Anybody can make one.'),
    false,
  ),
  token_kind: v.optional(
    oneOf(
      'What callers send. `access_token`: a token that calls itself an ID token is refused. `id_token`: for providers ' +
        'whose access tokens only they themselves can read.',
      ['access_token', 'id_token'],
    ),
    'access_token',
  ),
  access_token_claims: v.optional(
    claimPaths(
      'Claims by which access tokens of this issuer differ from its ID tokens: a token with none of them is refused as an ' +
        'ID token.',
    ),
    [],
  ),
  required_claims: v.optional(
    list(
      'Claims that every token must have, on every path. Those of the preset are required, too.',
      section('One required claim.', {
        claim: claimPath('Where the value is. Of a list, one element must match.'),
        any_of: v.optional(list('The accepted values. Default: any.', scalar('A value.'), 1)),
      }),
    ),
    [],
  ),
  forbidden_claims: v.optional(claimPaths('Claims that no token may have.'), []),
  max_token_age: v.optional(
    duration(
      'How long after `iat` a token is accepted, whatever its `exp`. Default: as long as `exp` says.',
      '1m',
      '24h',
    ),
  ),
  min_iat: v.optional(
    instant(
      'Tokens issued before this moment are refused: for when tokens leaked. A moment such as 2026-01-31T12:00:00Z, or ' +
        'seconds since 1970.',
    ),
  ),
  roles: v.optional(
    claimPaths('Where roles are: a list, one text, or an object whose names are the roles. Several places add up.'),
    [['roles']],
  ),
  permissions: v.optional(claimPaths('Where permissions are; as for roles.'), [['permissions']]),
} as const
