import type { PRESETS } from './claim-settings.ts'
import {
  checkAuth0,
  checkCognito,
  checkEntra,
  checkGithubActions,
  checkGoogle,
  checkKeycloak,
  checkOkta,
  checkWorkosConnect,
  checkWorkosUserManagement,
  isEntraV1,
  mustNotEndWithSlash,
  type PresetCheck,
} from './preset-checks.ts'

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
  readonly check?: PresetCheck
}

const RS256 = ['RS256']
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** The presets, by name. A setting that is written in the file wins over them. */
export const PRESET_SETTINGS: Readonly<Record<PresetName, Preset>> = {
  generic: { text: 'Any issuer that follows RFC 9068 or OpenID Connect.', settings: {} },
  auth0: {
    text: 'Access tokens for an API of an Auth0 tenant. Without an `audience` in the token request they are opaque.',
    settings: { algorithms: ['RS256', 'PS256'], token_types: ['JWT', 'at+jwt'], roles: [] },
    check: checkAuth0,
  },
  'workos-connect': {
    text: 'Access tokens of WorkOS Connect; the audience is the resource, or else the client id of the environment.',
    settings: {
      algorithms: RS256,
      token_types: ['absent', 'JWT', 'at+jwt'],
      access_token_claims: ['client_id'],
    },
    check: checkWorkosConnect,
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
    check: checkWorkosUserManagement,
  },
  okta: {
    text: 'Access tokens of an Okta custom authorization server.',
    settings: { algorithms: RS256, token_types: ['absent', 'JWT', 'at+jwt'], access_token_claims: ['cid'] },
    check: checkOkta,
  },
  entra: {
    text:
      'Access tokens of Microsoft Entra ID for an API of your own, of version 2 (`https://login.microsoftonline.com/TENANT/v2.0`) ' +
      'or 1 (`https://sts.windows.net/TENANT/`); with `{tenantid}` as the tenant, for the tenants listed.',
    settings: {
      algorithms: RS256,
      token_types: ['JWT'],
      access_token_claims: ['scp', 'azp', 'appid'],
      roles: ['roles'],
      permissions: [],
    },
    derive: deriveEntra,
    check: checkEntra,
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
    check: checkCognito,
  },
  keycloak: {
    text: 'Access tokens of a Keycloak realm. An Audience mapper must put the API into `aud`.',
    settings: {
      algorithms: ['RS256', 'PS256', 'ES256'],
      token_types: ['JWT', 'at+jwt'],
      required_claims: [{ claim: 'typ', any_of: ['Bearer'] }],
      roles: ['/realm_access/roles'],
    },
    check: checkKeycloak,
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
    check: checkGoogle,
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
    check: checkGithubActions,
  },
  pingone: {
    text: 'Access tokens of a PingOne environment.',
    settings: { algorithms: RS256, token_types: ['at+jwt', 'JWT', 'absent'] },
    check: mustNotEndWithSlash,
  },
  zitadel: {
    text: 'Access tokens of Zitadel, of applications that are set to JWT; the audience is the id of the project.',
    settings: {
      algorithms: RS256,
      token_types: ['at+jwt', 'JWT'],
      roles: [['urn:zitadel:iam:org:project:roles']],
      permissions: [],
    },
    check: mustNotEndWithSlash,
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
    check: mustNotEndWithSlash,
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
  // A key source that is written replaces the one of the preset, of whatever kind either is, and with it what is shown
  // there: the token of the pod is for the API server alone.
  if (KEY_SOURCES.some((key) => key in values)) for (const key of [...KEY_SOURCES, ...FETCH_FILES]) delete filled[key]
  return { ...filled, ...values, ...derive?.(known), ...withRequired(settings, values) }
}

const KEY_SOURCES = ['jwks_uri', 'jwks_file', 'discovery_url']
const FETCH_FILES = ['jwks_bearer_token_file', 'ca_file']

/** Claims that a preset requires keep other kinds of tokens out, and so those that are written come on top. */
function withRequired({ required_claims: known }: Values, { required_claims: written }: Values): Values {
  if (!Array.isArray(known) || !Array.isArray(written)) return {}
  const texts = new Set(written.map(textOfRequired))
  return { required_claims: [...known.filter((one) => !texts.has(textOfRequired(one))), ...(written as unknown[])] }
}

/** Equal for what means the same: the name of a claim, and the list of that one name. */
function textOfRequired(required: unknown): string {
  const { claim, any_of: anyOf } = (required ?? {}) as Values
  return JSON.stringify([typeof claim === 'string' ? [claim] : claim, anyOf])
}

/** The short form of the audience means another claim than `aud`. */
function withAudienceClaim(claim: 'client_id'): (written: Values) => Values {
  return ({ audience }) =>
    typeof audience === 'string' || Array.isArray(audience) ? { audience: { claim, values: audience } } : {}
}

/** Version 1 has its metadata on another host than its issuer; a template has none of its own at all. */
function deriveEntra(written: Values): Values {
  const issuer = String(written['issuer'])
  if (KEY_SOURCES.some((key) => key in written)) return {}
  const document = '.well-known/openid-configuration'
  const tenant = /^https:\/\/sts\.windows\.net\/([^/]+)\//.exec(issuer)?.[1]
  if (tenant !== undefined) {
    const place = tenant === TENANT ? 'common' : tenant
    return { discovery_url: `https://login.microsoftonline.com/${place}/${document}` }
  }
  // National clouds have a host of their own.
  if (!issuer.includes(TENANT) || isEntraV1(issuer)) return {}
  return { discovery_url: `${issuer.replace(TENANT, 'common')}/${document}` }
}

const TENANT = '{tenantid}'
