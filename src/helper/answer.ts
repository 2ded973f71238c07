import { createCipheriv, createDecipheriv, hash, hkdfSync, randomBytes } from 'node:crypto'
import type { TokenEndpointResponse } from 'oauth4webapi'
import { GRANT_CODES, GrantError } from '../errors.ts'

/** How a spend ended. */
export type Answer = { readonly tokens: TokenEndpointResponse } | { readonly error: GrantError }

/** What makes two spends the same one. */
export interface SpendIdentity {
  /** Configured name of the client. */
  readonly client: string
  /** The refresh token, authorization code or device code. */
  readonly credential: string
  /** Everything else that is sent; two requests are the same when its JSON is. */
  readonly parameters: unknown
}

/** Names that only somebody who has the credential can find, and keys that only such a one can make. */
export interface SpendNames {
  /** Of the spend as such. */
  readonly lease: string
  /** Of the answer of one attempt. */
  answer(attempt: string): string
  /** Of the sign of life of whoever makes that attempt. */
  pulse(attempt: string): string
  seal(attempt: string, caller: string, answer: Answer): string
  /** @returns undefined for a text that was not sealed by somebody with the same credential for the same attempt */
  open(attempt: string, text: string): { readonly caller: string; readonly answer: Answer } | undefined
}

const CIPHER = 'aes-256-gcm'
const IV_BYTES = 12
const TAG_BYTES = 16

/**
 * Derives names and keys from the credential itself, each under a label of its own (HKDF with SHA-256, RFC 5869): what is
 * shared by these names tells nothing to whoever does not hold the credential already. Credentials are long random texts
 * (RFC 6749 §10.10), so that none can be found by trying.
 */
export function createSpendNames({ client, credential, parameters }: SpendIdentity): SpendNames {
  // As a hash, because the context of a derivation has a limit.
  const scope = hash('sha256', JSON.stringify([client, parameters]), 'base64url')
  const derive = (label: string, attempt = '') =>
    Buffer.from(hkdfSync('sha256', credential, '', `bearward spend 1 ${label}\0${attempt}\0${scope}`, 32))
  return {
    lease: `l.${derive('lease').toString('base64url')}`,
    answer: (attempt) => `a.${derive('answer', attempt).toString('base64url')}`,
    pulse: (attempt) => `p.${derive('pulse', attempt).toString('base64url')}`,
    seal(attempt, caller, answer) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv(CIPHER, derive('key', attempt), iv)
      const text = Buffer.concat([cipher.update(JSON.stringify({ caller, ...toJson(answer) })), cipher.final()])
      return Buffer.concat([iv, text, cipher.getAuthTag()]).toString('base64url')
    },
    open(attempt, text) {
      const bytes = Buffer.from(text, 'base64url')
      if (bytes.length < IV_BYTES + TAG_BYTES) return undefined
      const decipher = createDecipheriv(CIPHER, derive('key', attempt), bytes.subarray(0, IV_BYTES))
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
      try {
        const json = Buffer.concat([decipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES)), decipher.final()])
        const { caller, ...answer } = JSON.parse(json.toString('utf8')) as { caller: string } & AnswerJson
        return { caller, answer: fromJson(answer) }
      } catch {
        return undefined
      }
    },
  }
}

type ErrorJson = Pick<GrantError, 'code' | 'status' | 'error' | 'description' | 'members' | 'headers' | 'detail'>
type AnswerJson = { readonly tokens: TokenEndpointResponse } | { readonly error: ErrorJson }

function toJson(answer: Answer): AnswerJson {
  if ('tokens' in answer) return answer
  const { code, status, error, description, members, headers, detail } = answer.error
  return { error: { code, status, error, description, members, headers, detail } }
}

function fromJson(json: AnswerJson): Answer {
  if ('tokens' in json) return json
  const { code, ...rest } = json.error
  // A replica of another version may know codes that this one does not.
  return { error: new GrantError(Object.hasOwn(GRANT_CODES, code) ? code : 'outcome_unknown', rest) }
}
