import { refusal } from '../errors.ts'
import { holdsOneOf, readPath } from '../token/claims.ts'
import type { VerifiedToken } from '../token/verifier.ts'
import type { Needed, Rule } from './rules.ts'

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
  if (rule.roles !== undefined) checkNames('role', token.roles, rule.roles)
  if (rule.permissions !== undefined) checkNames('permission', token.permissions, rule.permissions)
  for (const { path, anyOf } of rule.claims) {
    if (!holdsOneOf(readPath(token.claims, path), anyOf)) throw refusal('claims_forbidden', { claim: path })
  }
}

function checkNames(kind: 'role' | 'permission', names: readonly string[], { all, any }: Needed): void {
  const missing = all.find((name) => !names.includes(name))
  if (missing !== undefined) throw refusal('claims_forbidden', { [`missing_${kind}`]: missing })
  if (any.length > 0 && !any.some((name) => names.includes(name))) {
    throw refusal('claims_forbidden', { [`missing_${kind}`]: any })
  }
}

/** The scopes a rule asks for, space-delimited, for the challenge. */
export function scopesOf(rule: Rule): string {
  return [...rule.allScopes, ...rule.anyScope].join(' ')
}
