import { refusal } from '../errors.ts'
import { readPath } from '../token/claims.ts'
import type { VerifiedToken } from '../token/verifier.ts'
import type { RequiredClaim, Rule } from './rules.ts'

/**
 * Checks what a rule asks of a verified token. Runs on every request, also when the token itself was cached.
 *
 * @throws Refusal `scope_insufficient` (RFC 6750 §3.1) or `claims_forbidden`
 */
export function authorize(rule: Rule, token: VerifiedToken): void {
  for (const scope of rule.allScopes) {
    if (!token.scopes.includes(scope)) throw refusal('scope_insufficient', { missing: scope })
  }
  if (rule.anyScope.length > 0 && !rule.anyScope.some((scope) => token.scopes.includes(scope))) {
    throw refusal('scope_insufficient', { missing: rule.anyScope })
  }
  for (const claim of rule.claims) {
    if (!isSatisfied(claim, token)) throw refusal('claims_forbidden', { claim: claim.path })
  }
}

function isSatisfied({ path, anyOf }: RequiredClaim, token: VerifiedToken): boolean {
  const value = readPath(token.claims, path)
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  return values.some((candidate) => (anyOf as readonly unknown[]).includes(candidate))
}

/** The scopes a rule asks for, space-delimited, for the challenge. */
export function scopesOf(rule: Rule): string {
  return [...rule.allScopes, ...rule.anyScope].join(' ')
}
