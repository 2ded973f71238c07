import type { Expectation } from '../../src/token/claims.ts'

/** What tokens of a test's issuer must satisfy: the defaults of the configuration, with the given changes. */
export function createExpectation(
  changes: Partial<Expectation> & Pick<Expectation, 'issuer' | 'audience'>,
): Expectation {
  return {
    name: 'main',
    aliases: [],
    tenants: new Set(),
    kind: 'access_token',
    accessTokenClaims: [],
    required: [],
    forbidden: [],
    maxAgeSeconds: undefined,
    minIat: undefined,
    roles: [['roles']],
    permissions: [['permissions']],
    algorithms: new Set(['RS256', 'PS256', 'ES256', 'EdDSA']),
    types: new Set(['at+jwt', 'jwt', 'absent']),
    clockToleranceSeconds: 30,
    ...changes,
  }
}
