import type { Fault } from './check.ts'
import type { PRESETS } from './claim-settings.ts'
import type { Config } from './schema.ts'

type Values = Readonly<Record<string, unknown>>
type PresetName = (typeof PRESETS)[number]

/** What is known of a provider. */
export interface Preset {
  /** One sentence about the tokens it is for. */
  readonly text: string
  /** Settings of the issuer that it fills in. `{issuer}` stands for the issuer. */
  readonly settings: Values
  /** Settings that depend on what is written. */
  readonly derive?: (written: Values) => Values
  /** What is wrong with an issuer of this provider. */
  readonly check?: (issuer: IssuerConfig) => readonly Omit<Fault, 'path'>[]
}

type IssuerConfig = Config['issuers'][number]

const RS256 = ['RS256']
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** The presets, by name. A setting that is written in the file wins over them. */
export const PRESET_SETTINGS: Readonly<Record<PresetName, Preset>> = {
  generic: { text: 'Any issuer that follows RFC 9068 or OpenID Connect.', settings: {} },
  auth0: {
    text: 'Access tokens for an API of an Auth0 tenant. Without an `audience` in the token request they are opaque.',
    settings: { algorithms: ['RS256', 'PS256'], token_types: ['JWT', 'at+jwt'], roles: [] },
    check: ({ issuer }) => mustEndWithSlash(issuer),
  },
  'workos-connect': {
    text: 'Access tokens of WorkOS Connect; the audience is the resource, or else the client id of the environment.',
    settings: {
      algorithms: RS256,
      token_types: ['absent', 'JWT', 'at+jwt'],
      required_claims: [{ claim: 'client_id' }],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  'workos-user-management': {
    text: 'Session tokens of WorkOS User Management: without `aud`, bound to a client by the address of the keys.',
    settings: {
      algorithms: RS256,
      token_types: ['absent', 'JWT'],
      roles: ['role', 'roles'],
      permissions: ['permissions'],
    },
    derive: withAudienceClaim('client_id'),
    check: ({ jwks_uri: jwksUri }) =>
      jwksUri === undefined
        ? [{ problem: 'needs jwks_uri.', hint: 'It is https://api.workos.com/sso/jwks/ followed by the client id.' }]
        : [],
  },
  okta: {
    text: 'Access tokens of an Okta custom authorization server.',
    settings: { algorithms: RS256, token_types: ['absent', 'JWT', 'at+jwt'], required_claims: [{ claim: 'cid' }] },
    check: ({ issuer }) => [
      ...mustNotEndWithSlash(issuer),
      ...(/\/oauth2\/[^/]+/.test(issuer)
        ? []
        : [
            {
              problem: 'is the Okta org authorization server, whose access tokens only Okta itself can verify.',
              hint: 'Use a custom authorization server, such as https://DOMAIN/oauth2/default.',
            },
          ]),
    ],
  },
  entra: {
    text:
      'Access tokens of Microsoft Entra ID for an API of your own, of version 2 (`https://login.microsoftonline.com/TENANT/v2.0`) ' +
      'or 1 (`https://sts.windows.net/TENANT/`); with `{tenantid}` as the tenant, for the tenants listed.',
    settings: { algorithms: RS256, token_types: ['JWT'], roles: ['roles'], permissions: [] },
    derive: deriveEntra,
    check: ({ issuer }) => (isEntraV1(issuer) ? mustEndWithSlash(issuer) : mustNotEndWithSlash(issuer)),
  },
  cognito: {
    text: 'Access tokens of an Amazon Cognito user pool: without `aud`, so the audience is compared with `client_id`.',
    settings: {
      algorithms: RS256,
      token_types: ['absent'],
      required_claims: [{ claim: 'token_use', any_of: ['access'] }],
      roles: ['cognito:groups'],
    },
    derive: withAudienceClaim('client_id'),
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  keycloak: {
    text: 'Access tokens of a Keycloak realm. An Audience mapper must put the API into `aud`.',
    settings: {
      algorithms: ['RS256', 'PS256', 'ES256'],
      token_types: ['JWT', 'at+jwt'],
      required_claims: [{ claim: 'typ', any_of: ['Bearer'] }],
      roles: ['/realm_access/roles'],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  google: {
    text: 'ID tokens of Google, since its access tokens are opaque; the audience is a client id.',
    settings: {
      issuer: 'https://accounts.google.com',
      issuer_aliases: ['accounts.google.com'],
      algorithms: RS256,
      token_types: ['JWT', 'absent'],
      token_kind: 'id_token',
      roles: [],
      permissions: [],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  kubernetes: {
    text: 'Service-account tokens of the cluster. Keys are fetched with the token of this pod.',
    settings: {
      issuer: 'https://kubernetes.default.svc.cluster.local',
      jwks_uri: 'https://kubernetes.default.svc/openid/v1/jwks',
      jwks_bearer_token_file: `${SERVICE_ACCOUNT}/token`,
      ca_file: `${SERVICE_ACCOUNT}/ca.crt`,
      algorithms: ['RS256', 'ES256'],
      token_types: ['absent', 'JWT'],
      roles: [],
      permissions: [],
    },
  },
  'github-actions': {
    text: 'ID tokens of GitHub Actions workflows. Compare `repository_id` rather than names, which can be taken over.',
    settings: {
      issuer: 'https://token.actions.githubusercontent.com',
      algorithms: RS256,
      token_types: ['JWT'],
      token_kind: 'id_token',
      roles: [],
      permissions: [],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  pingone: {
    text: 'Access tokens of a PingOne environment.',
    settings: { algorithms: RS256, token_types: ['at+jwt', 'JWT', 'absent'] },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  zitadel: {
    text: 'Access tokens of Zitadel, of applications that are set to JWT; the audience is the id of the project.',
    settings: {
      algorithms: RS256,
      token_types: ['at+jwt', 'JWT'],
      roles: [['urn:zitadel:iam:org:project:roles']],
      permissions: [],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
  fusionauth: {
    text: 'Access tokens of FusionAuth, signed with an asymmetric key; the audience is the id of the application.',
    settings: { algorithms: ['RS256', 'ES256'], token_types: ['JWT'] },
  },
  'cloudflare-access': {
    text: 'Application tokens of Cloudflare Access. Set credentials.header: cf-access-jwt-assertion.',
    settings: {
      jwks_uri: '{issuer}/cdn-cgi/access/certs',
      algorithms: RS256,
      token_types: ['JWT'],
      required_claims: [{ claim: 'type', any_of: ['app'] }],
      roles: [],
      permissions: [],
    },
    check: ({ issuer }) => mustNotEndWithSlash(issuer),
  },
}

/** Fills in the preset of an issuer as written in the file. What is no group, or names no preset, is left to the schema. */
export function fillPreset(written: unknown): unknown {
  if (typeof written !== 'object' || written === null || Array.isArray(written)) return written
  const values = written as Values
  const name = values['preset']
  if (typeof name !== 'string' || !Object.hasOwn(PRESET_SETTINGS, name)) return written
  const { settings, derive } = PRESET_SETTINGS[name as PresetName]
  const known: Values = { ...settings, ...values }
  const filled = Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [
      key,
      typeof value === 'string' ? value.replace('{issuer}', String(known['issuer'])) : value,
    ]),
  )
  // A key source that is written replaces the one of the preset, of whatever kind either is.
  if (KEY_SOURCES.some((key) => key in values)) for (const key of KEY_SOURCES) delete filled[key]
  if ('jwks_file' in values) for (const key of FETCH_SETTINGS) delete filled[key]
  return { ...filled, ...values, ...derive?.(known) }
}

/** For fetching keys, and of no use beside a file. */
const FETCH_SETTINGS = ['jwks_bearer_token_file', 'ca_file']
const KEY_SOURCES = ['jwks_uri', 'jwks_file', 'discovery_url']

/** The short form of the audience means another claim than `aud`. */
function withAudienceClaim(claim: 'client_id'): (written: Values) => Values {
  return ({ audience }) =>
    typeof audience === 'string' || Array.isArray(audience) ? { audience: { claim, values: audience } } : {}
}

function isEntraV1(issuer: string): boolean {
  return issuer.startsWith('https://sts.windows.net/')
}

/** Version 1 has its metadata on another host than its issuer; a template has none of its own at all. */
function deriveEntra(written: Values): Values {
  const issuer = String(written['issuer'])
  if (KEY_SOURCES.some((key) => key in written)) return {}
  const base = 'https://login.microsoftonline.com'
  const document = '.well-known/openid-configuration'
  const tenant = /^https:\/\/(?:sts\.windows\.net|login\.microsoftonline\.com)\/([^/]+)\//.exec(issuer)?.[1]
  if (tenant === undefined) return {}
  const place = tenant === '{tenantid}' ? 'common' : tenant
  if (isEntraV1(issuer)) return { discovery_url: `${base}/${place}/${document}` }
  return tenant === '{tenantid}' ? { discovery_url: `${base}/${place}/v2.0/${document}` } : {}
}

function mustEndWithSlash(issuer: string): readonly Omit<Fault, 'path'>[] {
  if (issuer.endsWith('/')) return []
  return [{ problem: 'must end with a slash, as the tokens of this provider have it.', hint: `Write ${issuer}/.` }]
}

function mustNotEndWithSlash(issuer: string): readonly Omit<Fault, 'path'>[] {
  if (!issuer.endsWith('/')) return []
  const hint = `Write ${issuer.replace(/\/+$/, '')}.`
  return [{ problem: 'must not end with a slash, as the tokens of this provider have none.', hint }]
}
