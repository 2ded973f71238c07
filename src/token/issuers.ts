import { refusal } from '../errors.ts'
import type { IssuerKeys } from '../issuer/jwks-cache.ts'
import type { Claims, Expectation } from './claims.ts'

/** An issuer whose tokens are accepted: what they must satisfy, and where its keys are. */
export interface AcceptedIssuer {
  readonly expectation: Expectation
  readonly keys: IssuerKeys
}

/** Finds the issuer of a token by its claims. */
export interface IssuerIndex {
  /** @throws Refusal `claim_missing`, `claim_invalid` or `issuer_unknown` */
  find(claims: Claims): AcceptedIssuer
}

const TENANT = '{tenantid}'
const TENANT_ID = /^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/

/**
 * Indexes issuers by the exact values of `iss` that they use. One that holds `{tenantid}` stands for one issuer per tenant:
 * the value of `tid` is put there before comparing, and must be an accepted one.
 */
export function createIssuerIndex(issuers: readonly AcceptedIssuer[]): IssuerIndex {
  const exact = new Map<string, AcceptedIssuer>()
  const templates: AcceptedIssuer[] = []
  for (const issuer of issuers) {
    if (issuer.expectation.issuer.includes(TENANT)) templates.push(issuer)
    for (const name of [issuer.expectation.issuer, ...issuer.expectation.aliases]) {
      if (!name.includes(TENANT)) exact.set(name, issuer)
    }
  }
  return {
    find(claims) {
      const { iss } = claims
      if (iss === undefined) throw refusal('claim_missing', { claim: 'iss' })
      if (typeof iss !== 'string') throw refusal('claim_invalid', { claim: 'iss' })
      const issuer = exact.get(iss) ?? templates.find(({ expectation }) => isTenantOf(expectation, iss, claims))
      if (issuer === undefined) {
        const expected = issuers.map(({ expectation }) => expectation.issuer)
        throw refusal('issuer_unknown', { issuer: iss, expected, ...describeDifference(iss, expected) })
      }
      return issuer
    },
  }
}

function isTenantOf({ issuer, tenants }: Expectation, iss: string, claims: Claims): boolean {
  const { tid } = claims
  if (typeof tid !== 'string' || !TENANT_ID.test(tid)) return false
  return fillTenant(issuer, claims) === iss && (tenants === 'any' || tenants.has(tid.toLowerCase()))
}

/** An issuer with the token's own `tid` in the place of the placeholder. */
export function fillTenant(template: string, { tid }: Claims): string {
  return typeof tid === 'string' && TENANT_ID.test(tid) ? template.replace(TENANT, tid) : template
}

/** What to do about an issuer that is nearly a configured one; for the log, since `iss` is what the caller wrote. */
function describeDifference(iss: string, expected: readonly string[]): { hint?: string } {
  const bare = (name: string) => name.replace(/\/$/, '')
  if (expected.some((name) => bare(name) === bare(iss))) return { hint: 'they differ by the slash at the end' }
  if (iss.startsWith(ENTRA_V1) && expected.some((name) => name.includes('/v2.0'))) {
    return { hint: 'a token of version 1: accept this issuer, too, or set requestedAccessTokenVersion: 2 for the API' }
  }
  if (iss.endsWith('/v2.0') && expected.some((name) => name.startsWith(ENTRA_V1))) {
    return { hint: 'a token of version 2: accept this issuer, too' }
  }
  // Okta's org authorization server is the host alone, the custom ones are below it.
  if (expected.some((name) => name.startsWith(`${iss}/oauth2/`))) {
    return {
      hint: 'a token of the org authorization server, which only Okta can verify: ask the custom one for a token',
    }
  }
  return {}
}

const ENTRA_V1 = 'https://sts.windows.net/'
