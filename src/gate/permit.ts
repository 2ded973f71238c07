import type { VerifiedToken } from '../token/verifier.ts'
import type { Rule } from './rules.ts'

declare const granted: unique symbol

/**
 * The gate's yes. Whatever talks to the upstream takes one of these, and only gate.ts may make one (the architecture test
 * holds that), so a forgotten check does not compile. Public routes get one too, an anonymous one.
 */
export interface Permit {
  readonly [granted]: true
  readonly rule: Rule
  /** The verified token, or `undefined` for an anonymous request. */
  readonly token: VerifiedToken | undefined
  /** The identity header fields to set, flat. Every inbound field of these names is removed whatever this holds. */
  readonly identity: readonly string[]
}

/** Makes a permit. For gate.ts alone. */
export function grantPermit(rule: Rule, token: VerifiedToken | undefined, identity: readonly string[]): Permit {
  return { rule, token, identity } as Permit
}
