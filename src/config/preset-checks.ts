/** What is commonly wrong with an issuer of a known provider: one sentence each, with the cure. */
import type { Fault } from './check.ts'
import type { Config } from './schema.ts'

export type IssuerConfig = Config['issuers'][number]

/** Something wrong with a setting of an issuer, by default with `issuer` itself. */
export type PresetFault = Omit<Fault, 'path'> & { readonly setting?: keyof IssuerConfig }

export type PresetCheck = (issuer: IssuerConfig) => readonly PresetFault[]

/** A fault, if there is one. */
function when(isWrong: boolean, fault: PresetFault): readonly PresetFault[] {
  return isWrong ? [fault] : []
}

export const mustEndWithSlash: PresetCheck = ({ issuer }) =>
  when(!issuer.endsWith('/'), {
    problem: 'must end with a slash, as the tokens of this provider have it.',
    hint: `Write ${issuer}/.`,
  })

export const mustNotEndWithSlash: PresetCheck = ({ issuer }) =>
  when(issuer.endsWith('/'), {
    problem: 'must not end with a slash, as the tokens of this provider have none.',
    hint: `Write ${issuer.replace(/\/+$/, '')}.`,
  })

export const checkAuth0: PresetCheck = (issuer) => [
  ...mustEndWithSlash(issuer),
  ...when(
    issuer.audience.values.some((value) => value.endsWith('/userinfo')),
    {
      setting: 'audience',
      problem: 'is an address that tokens for every API of the tenant name, too.',
      hint: 'Write the identifier of this API.',
    },
  ),
]

export const checkWorkosConnect: PresetCheck = (issuer) => [
  ...mustNotEndWithSlash(issuer),
  ...when(issuer.issuer.startsWith('https://api.workos.com'), {
    problem: 'is the issuer of User Management, not of Connect.',
    hint: 'Write https://SUBDOMAIN.authkit.app, or set preset: workos-user-management.',
  }),
]

export const checkWorkosUserManagement: PresetCheck = ({ jwks_uri: uri, jwks_file: file }) =>
  when(uri === undefined && file === undefined, {
    problem: 'needs jwks_uri.',
    hint: 'It is https://api.workos.com/sso/jwks/ followed by the client id.',
  })

export const checkOkta: PresetCheck = (issuer) => [
  ...mustNotEndWithSlash(issuer),
  ...when(!/\/oauth2\/[^/]+/.test(issuer.issuer), {
    problem: 'is the Okta org authorization server, whose access tokens only Okta itself can verify.',
    hint: 'Use a custom authorization server, such as https://DOMAIN/oauth2/default.',
  }),
]

const GUID = /^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/

/** The issuers of version 1, which live on a host of their own. */
export const isEntraV1 = (issuer: string) => issuer.startsWith('https://sts.')

export const checkEntra: PresetCheck = (settings) => {
  const { issuer } = settings
  const tenant = /^https:\/\/[^/]+\/([^/]+)/.exec(issuer)?.[1] ?? ''
  if (tenant !== '{tenantid}' && !GUID.test(tenant)) {
    const problem = `names its tenant "${tenant}", but tokens name the id of one (a GUID).`
    return [{ problem, hint: 'Write the id, or {tenantid} and the ids under tenants.' }]
  }
  if (isEntraV1(issuer)) return mustEndWithSlash(settings)
  return when(!/^https:\/\/[^/]+\/[^/]+\/v2\.0$/.test(issuer), {
    problem: 'is none of the two that tokens of Entra name, character by character.',
    hint: `Write https://login.microsoftonline.com/${tenant}/v2.0 for version 2, https://sts.windows.net/${tenant}/ for version 1.`,
  })
}

export const checkCognito: PresetCheck = (issuer) => [
  ...mustNotEndWithSlash(issuer),
  ...when(issuer.issuer.includes('.amazoncognito.com'), {
    problem: 'is the address of the login pages, which no token names.',
    hint: 'Write https://cognito-idp.REGION.amazonaws.com/POOL.',
  }),
]

export const checkKeycloak: PresetCheck = (issuer) => [
  ...mustNotEndWithSlash(issuer),
  ...when(!/\/realms\/[^/]+\/?$/.test(issuer.issuer), {
    problem: 'names no realm.',
    hint: 'Write https://HOST/realms/REALM.',
  }),
  ...when(issuer.audience.claim === 'aud' && issuer.audience.values.includes('account'), {
    setting: 'audience',
    problem: '"account" is in the tokens of every client of the realm.',
    hint: 'Put this API into `aud` with an Audience mapper, and write its name.',
  }),
]

/** For providers that sign nothing but ID tokens. */
function mustBeIdTokens({ token_kind: kind }: IssuerConfig): readonly PresetFault[] {
  return when(kind !== 'id_token', {
    setting: 'token_kind',
    problem: 'must be id_token: the access tokens of this provider are opaque, and only it can read them.',
  })
}

export const checkGoogle: PresetCheck = (issuer) => [...mustNotEndWithSlash(issuer), ...mustBeIdTokens(issuer)]

/** Claims that say whose workflow it is. */
const OWNERS = new Set(
  (
    'sub repository repository_id repository_owner repository_owner_id enterprise enterprise_id job_workflow_ref ' +
    'workflow_ref actor_id environment_node_id'
  ).split(' '),
)

export const checkGithubActions: PresetCheck = (issuer) => [
  ...mustNotEndWithSlash(issuer),
  ...mustBeIdTokens(issuer),
  ...when(
    issuer.issuer === 'https://token.actions.githubusercontent.com' &&
      !issuer.required_claims.some(({ claim, any_of: anyOf }) => anyOf !== undefined && OWNERS.has(claim[0] ?? '')),
    {
      setting: 'required_claims',
      problem: 'must say whose workflows: everybody on GitHub can get a token for any audience.',
      hint: "Add { claim: repository_owner_id, any_of: ['ID'] }.",
    },
  ),
]
