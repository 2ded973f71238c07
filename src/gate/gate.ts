import { refusal } from '../errors.ts'
import type { TokenReader } from '../http/authorization.ts'
import { isPreflight } from '../http/cors.ts'
import { findField } from '../http/headers.ts'
import { readTarget, type TargetOptions } from '../http/target.ts'
import type { TokenVerifier, VerifiedToken } from '../token/verifier.ts'
import { authorize } from './authorize.ts'
import type { IdentityEncoder } from './identity.ts'
import { grantPermit, type Permit } from './permit.ts'
import type { GateRequest } from './request.ts'
import type { Rule, RuleMatcher } from './rules.ts'

export interface GateOptions {
  readonly target: TargetOptions
  readonly readToken: TokenReader
  readonly matchRule: RuleMatcher
  /** Whether the preflights of browsers, which carry no token, are the backend's to answer. */
  readonly forwardPreflights: boolean
  readonly verifier: TokenVerifier
  readonly toIdentity: IdentityEncoder
}

/** Filled in while the gate decides, so that a refusal can be logged with what was known by then. */
export interface Findings {
  rule?: Rule
  token?: VerifiedToken
}

/**
 * May this request pass, and under which identity? Throws (or rejects with) a Refusal or Unavailable for no. Answers at
 * once unless a signature must be checked: most requests bring a token that was seen before, and a promise for each costs
 * more than the decision.
 */
export type Gate = (request: GateRequest, findings: Findings) => Permit | Promise<Permit>

/**
 * Creates the gate: the one place that decides, and the only one that makes a {@link Permit}.
 *
 * Throws every code of errors.ts that is a refusal or an unavailability.
 */
export function createGate(options: GateOptions): Gate {
  const { target: targetOptions, readToken, matchRule, forwardPreflights, verifier, toIdentity } = options
  const admit = (rule: Rule, token: VerifiedToken, findings: Findings): Permit => {
    findings.token = token
    authorize(rule, token)
    return grantPermit(rule, token, toIdentity(token))
  }

  return (request, findings) => {
    checkHost(request)
    const target = readTarget(request.target, targetOptions)
    const rule = matchRule(target, request.method)
    findings.rule = rule
    if (rule.access === 'public') return grantPermit(rule, undefined, [])

    const text = readToken(request.fields)
    if (text === undefined) {
      if (rule.access === 'optional') return grantPermit(rule, undefined, [])
      if (forwardPreflights && isPreflight(request.method, request.fields)) return grantPermit(rule, undefined, [])
      throw refusal('credentials_missing')
    }
    const token = verifier.verify(text)
    return token instanceof Promise ? token.then((late) => admit(rule, late, findings)) : admit(rule, token, findings)
  }
}

const LEGAL_HOST = /^(?:[A-Za-z0-9._~-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?$/

/** Exactly one Host, and one that names a host (RFC 9112 §3.2); a backend that reads the other of two sees another site. */
function checkHost({ fields }: GateRequest): void {
  const { count, value } = findField(fields, 'host')
  if (count !== 1 || value === undefined || !LEGAL_HOST.test(value)) throw refusal('host_invalid', { count })
}
