import { hash } from 'node:crypto'
import { compactDecrypt, CompactEncrypt, decodeProtectedHeader } from 'jose'
import { GrantError } from '../errors.ts'
import type { Subject } from './subjects.ts'

/** Whom a sealed refresh token is for. */
export interface SealBinding {
  /** Configured name of the client. */
  readonly client: string
  /** Authenticated name of the caller. */
  readonly caller: string
}

/** Makes refresh tokens useless to everybody but the sidecars that have the key. */
export interface Sealer {
  /** @param subject - whom the token is about, if that is known: comes out again on whichever replica opens it */
  seal(refreshToken: string, binding: SealBinding, subject?: Subject): Promise<string>
  /**
   * @throws GrantError `refresh_token_not_sealed`, `refresh_token_seal_invalid`; the detail says why, for the log
   */
  open(text: string, binding: SealBinding): Promise<Opened>
}

/** What was sealed. */
export interface Opened {
  readonly refreshToken: string
  readonly subject: Subject | undefined
  /** Whether it would be sealed in the same way today: with the key that seals now. */
  readonly isCurrent: boolean
}

export interface SealerOptions {
  /** 32 random bytes each. The first one seals, all of them open. At least one. */
  readonly keys: readonly Uint8Array[]
  /** Whether only the caller that a token was sealed for may use it; otherwise any caller of the client. */
  readonly bindToCaller: boolean
  /** Whether refresh tokens of before, which were not sealed, are taken as they are. */
  readonly acceptUnsealed: boolean
}

export const SEAL_KEY_BYTES = 32
/** Tells our own from refresh tokens that issuers encrypt (Cognito does). */
const TYPE = 'bearward-rt'
/** Longer than any refresh token that a request has room for. */
const MAX_LENGTH = 64 * 1024

/** What is sealed: short names, because it travels with every request. */
interface Sealed {
  readonly rt: string
  readonly client: string
  /** Absent when any caller of the client may use it. */
  readonly caller?: string
  readonly sub?: Subject
}

/**
 * Creates the sealer: JWE in compact form (RFC 7516) with a key that is shared directly (`dir`) and A256GCM. `kid` is a
 * digest of the key.
 */
export function createSealer({ keys, bindToCaller, acceptUnsealed }: SealerOptions): Sealer {
  const byId = new Map(keys.map((key) => [toKeyId(key), key]))
  const [first] = byId
  if (first === undefined || keys.some((key) => key.length !== SEAL_KEY_BYTES)) {
    throw new TypeError('sealing needs keys of 32 bytes')
  }
  const [kid, key] = first
  return {
    seal(rt, { client, caller }, sub) {
      const sealed: Sealed = { rt, client, ...(bindToCaller && { caller }), ...(sub !== undefined && { sub }) }
      return new CompactEncrypt(new TextEncoder().encode(JSON.stringify(sealed)))
        .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', typ: TYPE, kid })
        .encrypt(key)
    },

    async open(text, { client, caller }) {
      const sealedBy = readKeyId(text)
      if (sealedBy === undefined) {
        if (acceptUnsealed) return { refreshToken: text, subject: undefined, isCurrent: false }
        throw notSealed()
      }
      const known = byId.get(sealedBy)
      if (known === undefined) throw invalidSeal('key_unknown')
      const sealed = await decrypt(text, known)
      if (sealed.client !== client) throw invalidSeal('other_client')
      if (sealed.caller === undefined ? bindToCaller : sealed.caller !== caller) throw invalidSeal('other_caller')
      return { refreshToken: sealed.rt, subject: sealed.sub, isCurrent: sealedBy === kid }
    },
  }
}

function toKeyId(key: Uint8Array): string {
  const digest = hash('sha256', Buffer.concat([Buffer.from('bearward sealing key\0'), key]), 'buffer')
  return digest.subarray(0, 9).toString('base64url')
}

/** The `kid` of what calls itself sealed here; undefined for anything else. */
function readKeyId(text: string): string | undefined {
  if (text.length > MAX_LENGTH || text.split('.').length !== 5) return undefined
  try {
    const { typ, kid } = decodeProtectedHeader(text)
    if (typ !== TYPE) return undefined
    return kid ?? ''
  } catch {
    return undefined
  }
}

async function decrypt(text: string, key: Uint8Array): Promise<Sealed> {
  try {
    const { plaintext } = await compactDecrypt(text, key, {
      keyManagementAlgorithms: ['dir'],
      contentEncryptionAlgorithms: ['A256GCM'],
    })
    return JSON.parse(new TextDecoder().decode(plaintext)) as Sealed
  } catch {
    throw invalidSeal('tampered')
  }
}

function notSealed(): GrantError {
  return new GrantError('refresh_token_not_sealed', {
    status: 400,
    error: 'invalid_grant',
    description: 'Only refresh tokens that were sealed here are accepted; it was not spent.',
  })
}

/** One description for every reason: which of them it was is the operator's to know. */
function invalidSeal(reason: 'key_unknown' | 'tampered' | 'other_client' | 'other_caller'): GrantError {
  return new GrantError('refresh_token_seal_invalid', {
    status: 400,
    error: 'invalid_grant',
    description: 'The sealed refresh token cannot be used here; it was not spent.',
    detail: { reason },
  })
}
