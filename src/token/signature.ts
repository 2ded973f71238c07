import { constants, verify, type KeyObject, type VerifyKeyObjectInput } from 'node:crypto'
import { availableParallelism } from 'node:os'
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

/** How long checks may hold up the event loop in one of its turns. What comes later in the turn is left to the thread pool. */
const TURN_LIMIT_MS = 2
/** Enough to keep the four threads of the pool busy, and few enough that a log write or a DNS look-up soon gets its turn. */
const MAX_ON_THREADS = 32
/** A tenth of a second of work for one core. Whoever comes later is better served by a retry than by a longer wait. */
const MAX_WAITING = 1_000
/** With a single core, threads would only take it from the event loop: there, what waits is left to the turns that follow. */
const THREAD_LIMIT = availableParallelism() > 1 ? MAX_ON_THREADS : 0

/** A signature to be checked: what of, and who is told. */
interface Check {
  readonly primitive: Primitive
  readonly token: string
  readonly key: KeyObject
  readonly onResult: (valid: boolean) => void
}

/** Of the whole process, like the event loop and the thread pool that they keep from being flooded. */
const waiting: Check[] = []
let onThreads = 0
/** What checks have taken of this turn of the event loop, in milliseconds. */
let spentMs = 0
let isTurnCounted = false

/**
 * Whether the signature of a JWS in compact form is right for a public key, told at once: as long as none waits and checks took
 * less than 2 ms of this turn of the event loop. By way of the thread pool a check takes 10 to 30 µs more of CPU time.
 *
 * @param token - three parts of base64url, checked for form
 * @param alg - the algorithm to verify with, already checked against the issuer's allow-list
 * @returns `undefined` when it must wait: then {@link isSignatureValid} is to be asked
 * @see RFC 7515 §5.2, RFC 7518 §3, RFC 8037 §3.1
 */
export function isSignatureValidNow(token: string, key: KeyObject, alg: string): boolean | undefined {
  if (waiting.length > 0 || spentMs >= TURN_LIMIT_MS) return undefined
  const primitive = findPrimitive(key, alg)
  return primitive === undefined ? false : checkNow(primitive, token, key)
}

/**
 * The same by way of the thread pool, so that a flood of forged tokens costs the event loop a few microseconds each; with a
 * single core, 2 ms of each of its turns.
 *
 * At most 1,032 checks are under way or wait, in the order they came.
 *
 * @returns a promise that rejects with Unavailable `overloaded` when there are too many
 */
export function isSignatureValid(token: string, key: KeyObject, alg: string): Promise<boolean> {
  const primitive = findPrimitive(key, alg)
  if (primitive === undefined) return Promise.resolve(false)
  return new Promise((resolve, reject) => {
    const check: Check = { primitive, token, key, onResult: resolve }
    if (onThreads < THREAD_LIMIT) {
      onThreads += 1
      checkOnThreads(check)
    } else if (onThreads + waiting.length < MAX_ON_THREADS + MAX_WAITING) {
      waiting.push(check)
      countTurn()
    } else reject(unavailable('overloaded', { signature_checks_waiting: waiting.length }))
  })
}

function checkNow(primitive: Primitive, token: string, key: KeyObject): boolean {
  const operands = readOperands(primitive, token, key)
  if (operands === undefined) return false
  countTurn()
  const startedMs = performance.now()
  try {
    return verify(operands.digest, operands.input, operands.key, operands.signature)
  } catch {
    // OpenSSL could not even begin with it.
    return false
  } finally {
    spentMs += performance.now() - startedMs
  }
}

function countTurn(): void {
  if (isTurnCounted) return
  isTurnCounted = true
  setImmediate(endTurn)
}

/** What waits is left to the threads; where there are none, it has its share of the next turn first. */
function endTurn(): void {
  isTurnCounted = false
  spentMs = 0
  if (THREAD_LIMIT > 0) return
  while (spentMs < TURN_LIMIT_MS) {
    const next = waiting.shift()
    if (next === undefined) return
    next.onResult(checkNow(next.primitive, next.token, next.key))
  }
  countTurn()
}

function checkOnThreads({ primitive, token, key, onResult }: Check): void {
  const done = (valid: boolean) => {
    onResult(valid)
    const next = waiting.shift()
    if (next === undefined) onThreads -= 1
    else checkOnThreads(next)
  }
  const operands = readOperands(primitive, token, key)
  if (operands === undefined) return done(false)
  const { digest, input, key: keyInput, signature } = operands
  verify(digest, input, keyInput, signature, (error, valid) => done(error === null && valid))
}

function findPrimitive(key: KeyObject, alg: string): Primitive | undefined {
  const primitive = PRIMITIVES.get(alg)
  return primitive !== undefined && key.asymmetricKeyType === primitive.keyType ? primitive : undefined
}

/** What OpenSSL is given. */
interface Operands {
  readonly digest: string | null
  readonly input: Buffer
  readonly key: KeyObject | VerifyKeyObjectInput
  readonly signature: Buffer
}

/** @returns undefined when the signature is none of this algorithm, whatever its bytes are */
function readOperands(primitive: Primitive, token: string, key: KeyObject): Operands | undefined {
  const { digest, saltLength, integerBytes } = primitive
  const dot = token.lastIndexOf('.')
  const raw = Buffer.from(token.slice(dot + 1), 'base64url')
  if (saltLength !== undefined && raw.length !== modulusBytes(key)) return undefined
  const signature = integerBytes === undefined ? raw : toDer(raw, integerBytes)
  if (signature === undefined) return undefined
  // The key by itself wherever its defaults are right: a key within options takes Node 24 another 10 to 15 µs to recognise.
  const keyInput = saltLength === undefined ? key : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }
  return { digest, input: Buffer.from(token.slice(0, dot), 'latin1'), key: keyInput, signature }
}

/**
 * How long each signature of an RSA key is (RFC 8017 §8.1.2, step 1). Only of RSASSA-PSS OpenSSL does not see to it: it takes
 * one whose leading zero byte was left out.
 */
function modulusBytes(key: KeyObject): number {
  return Math.ceil((key.asymmetricKeyDetails?.modulusLength ?? 0) / 8)
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
