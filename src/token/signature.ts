import { constants, verify, type KeyObject } from 'node:crypto'
import { unavailable } from '../errors.ts'

/** How OpenSSL is asked to verify one algorithm of RFC 7518 §3.1 or RFC 8037 §3.1. */
interface Primitive {
  /** The only type of key it works with: a key of another type never verifies anything. */
  readonly keyType: 'rsa' | 'ec' | 'ed25519'
  /** Absent where the algorithm includes its own. */
  readonly digest: string | null
  /** Of RSASSA-PSS: bytes of salt. */
  readonly saltLength?: number
  /** Of ECDSA: bytes of each of the two integers that make up the signature (RFC 7518 §3.4). */
  readonly integerBytes?: number
}

/** RFC 7518 §3.3: PKCS #1 v1.5, which is what Node does with an RSA key unless told otherwise. */
const pkcs1 = (digest: string): Primitive => ({ keyType: 'rsa', digest })
/** RFC 7518 §3.5: MGF1 with the same digest, which OpenSSL takes by default, and a salt as long as the digest. */
const pss = (digest: string, saltLength: number): Primitive => ({ keyType: 'rsa', digest, saltLength })
const ecdsa = (digest: string, integerBytes: number): Primitive => ({ keyType: 'ec', digest, integerBytes })
const ED25519: Primitive = { keyType: 'ed25519', digest: null }

const PRIMITIVES: ReadonlyMap<string, Primitive> = new Map([
  ['RS256', pkcs1('sha256')],
  ['RS384', pkcs1('sha384')],
  ['RS512', pkcs1('sha512')],
  ['PS256', pss('sha256', 32)],
  ['PS384', pss('sha384', 48)],
  ['PS512', pss('sha512', 64)],
  ['ES256', ecdsa('sha256', 32)],
  ['ES384', ecdsa('sha384', 48)],
  ['ES512', ecdsa('sha512', 66)],
  ['EdDSA', ED25519],
  ['Ed25519', ED25519],
])

/** Enough to keep the four threads of the pool busy, and few enough that a log write or a DNS look-up soon gets its turn. */
const MAX_CONCURRENT = 32
/** A tenth of a second of work for one core. Whoever comes later is better served by a retry than by a longer wait. */
const MAX_WAITING = 1_000

/** Of the whole process, like the thread pool that they keep from being flooded. */
let underWay = 0
const waiting: (() => void)[] = []

/**
 * Whether the signature of a JWS in compact form is right for a public key. The one place around the primitive: OpenSSL on
 * the thread pool, so that a flood of forged tokens costs the event loop a few microseconds each.
 *
 * At most 32 checks are under way and 1,000 wait, in the order they came.
 *
 * @param token - three parts of base64url, checked for form
 * @param alg - the algorithm to verify with, already checked against the issuer's allow-list
 * @returns a promise that rejects with Unavailable `overloaded` when too many checks wait
 * @see RFC 7515 §5.2, RFC 7518 §3, RFC 8037 §3.1
 */
export function isSignatureValid(token: string, key: KeyObject, alg: string): Promise<boolean> {
  const primitive = PRIMITIVES.get(alg)
  if (primitive === undefined || key.asymmetricKeyType !== primitive.keyType) return Promise.resolve(false)
  return new Promise((resolve, reject) => {
    const check = () => {
      const done = (valid: boolean) => {
        resolve(valid)
        startNext()
      }
      verifyWith(primitive, token, key, done)
    }
    if (underWay < MAX_CONCURRENT) {
      underWay += 1
      check()
    } else if (waiting.length < MAX_WAITING) waiting.push(check)
    else reject(unavailable('overloaded', { signature_checks_waiting: waiting.length }))
  })
}

function startNext(): void {
  const next = waiting.shift()
  if (next === undefined) underWay -= 1
  else next()
}

function verifyWith(primitive: Primitive, token: string, key: KeyObject, done: (valid: boolean) => void): void {
  const { digest, saltLength, integerBytes } = primitive
  const dot = token.lastIndexOf('.')
  const raw = Buffer.from(token.slice(dot + 1), 'base64url')
  const signature = integerBytes === undefined ? raw : toDer(raw, integerBytes)
  if (signature === undefined) return done(false)
  // The key by itself wherever its defaults are right: a key within options takes Node 24 another 10 to 15 µs to recognise.
  const keyInput = saltLength === undefined ? key : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }
  const input = Buffer.from(token.slice(0, dot), 'latin1')
  verify(digest, input, keyInput, signature, (error, valid) => done(error === null && valid))
}

/**
 * An ECDSA signature in the form that OpenSSL reads: two DER integers in a sequence (RFC 3279 §2.2.3). Node converts it,
 * too (`ieee-p1363`), but on the event loop and in 20 to 30 µs instead of half of one.
 *
 * @returns undefined when it is not exactly two integers of that many bytes long
 */
function toDer(raw: Buffer, integerBytes: number): Buffer | undefined {
  if (raw.length !== 2 * integerBytes) return undefined
  const der = Buffer.allocUnsafe(raw.length + 9)
  // From 128 bytes on, which only P-521 reaches, the length takes a second byte; the space for it lies ahead.
  const middle = writeInteger(der, 3, raw.subarray(0, integerBytes))
  const end = writeInteger(der, middle, raw.subarray(integerBytes))
  const length = end - 3
  if (length < 128) {
    der[1] = 0x30
    der[2] = length
    return der.subarray(1, end)
  }
  der[0] = 0x30
  der[1] = 0x81
  der[2] = length
  return der.subarray(0, end)
}

/**
 * Writes a non-negative integer at a place of `der`: no zero bytes ahead, but for the one that keeps a high first bit from
 * meaning a minus sign.
 *
 * @returns where it ends
 */
function writeInteger(der: Buffer, at: number, integer: Buffer): number {
  let start = 0
  while (start < integer.length - 1 && integer[start] === 0) start += 1
  const padding = (integer[start] as number) >= 0x80 ? 1 : 0
  const digitsAt = at + 2 + padding
  der[at] = 0x02
  der[at + 1] = padding + integer.length - start
  // The padding, or overwritten by the first digit.
  der[at + 2] = 0
  return digitsAt + integer.copy(der, digitsAt, start)
}
