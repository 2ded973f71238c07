import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import type { CodedError } from '../../../src/errors.ts'
import { isSignatureValid, isSignatureValidNow } from '../../../src/token/signature.ts'
import { encode } from '../../fakes/signer.ts'

interface Subject {
  readonly alg: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly sign: (input: string) => Buffer
}

function subject(alg: string): Subject {
  const { privateKey, publicKey } = generate(alg)
  return { alg, privateKey, publicKey, sign: (input) => signInput(alg, privateKey, Buffer.from(input)) }
}

function generate(alg: string) {
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' })
  if (alg === 'ES384') return generateKeyPairSync('ec', { namedCurve: 'P-384' })
  if (alg === 'ES512') return generateKeyPairSync('ec', { namedCurve: 'P-521' })
  if (alg.startsWith('Ed')) return generateKeyPairSync('ed25519')
  return generateKeyPairSync('rsa', { modulusLength: 2048 })
}

function signInput(alg: string, key: KeyObject, data: Buffer, saltLength = Number(alg.slice(2)) / 8): Buffer {
  if (alg.startsWith('Ed')) return sign(null, data, key)
  const digest = `sha${alg.slice(2)}`
  if (alg.startsWith('ES')) return sign(digest, data, { key, dsaEncoding: 'ieee-p1363' })
  return alg.startsWith('PS') ? sign(digest, data, { key, padding: 6, saltLength }) : sign(digest, data, key)
}

const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']
const subjects = ALGORITHMS.map(subject)

/** What is told at once, in a turn of the event loop that has time for it. */
async function saysNow(token: string, key: KeyObject, alg: string): Promise<boolean | undefined> {
  await new Promise(setImmediate)
  return isSignatureValidNow(token, key, alg)
}

const inputOf = (alg: string, body: unknown = { n: 1 }) => `${encode({ alg })}.${encode(body)}`
const tokenOf = (input: string, signature: Buffer) => `${input}.${signature.toString('base64url')}`

/** What the library says that implements the RFCs on another interface of the platform. */
async function referenceSays(token: string, key: KeyObject, alg: string): Promise<boolean> {
  return compactVerify(token, key, { algorithms: [alg] }).then(
    () => true,
    () => false,
  )
}

/** Signatures that are wrong in every way somebody thought of, and a few that are merely odd. */
function variants({ alg, publicKey, privateKey, sign: signWith }: Subject): [string, Buffer][] {
  const input = inputOf(alg)
  let good = signWith(input)
  // Of these the reference takes one without its first byte, and this verifier does not: see the test of its own below.
  while (alg.startsWith('PS') && good[0] === 0) good = signWith(input)
  const flipped = (at: number) => {
    const copy = Buffer.from(good)
    copy[at] = (copy[at] as number) ^ (1 << (at % 8))
    return copy
  }
  const half = good.length / 2
  const [first, second] = [good.subarray(0, half), good.subarray(half)]
  const zero = Buffer.alloc(half)
  const ones = Buffer.alloc(half, 0xff)
  const found: [string, Buffer][] = [
    ...Array.from({ length: good.length }, (_, at): [string, Buffer] => [`byte ${at} changed`, flipped(at)]),
    ['a byte too short at the end', good.subarray(0, -1)],
    ['a byte too short at the front', good.subarray(1)],
    ['a zero byte more at the end', Buffer.concat([good, Buffer.alloc(1)])],
    ['a zero byte more at the front', Buffer.concat([Buffer.alloc(1), good])],
    ['twice as long', Buffer.concat([good, good])],
    ['nothing but zeros', Buffer.alloc(good.length)],
    ['nothing but ones', Buffer.alloc(good.length, 0xff)],
    ['one byte', Buffer.from([0])],
    ['halves swapped', Buffer.concat([second, first])],
    ['first half zero', Buffer.concat([zero, second])],
    ['second half zero', Buffer.concat([first, zero])],
    ['first half as large as can be', Buffer.concat([ones, second])],
    ['second half as large as can be', Buffer.concat([first, ones])],
    ['of other bytes', signWith(`${input}x`)],
    ['by another key', subject(alg).sign(input)],
    ...Array.from({ length: 20 }, (_, i): [string, Buffer] => [`random ${i}`, randomBytes(good.length)]),
  ]
  if (alg.startsWith('ES')) {
    const der = sign(`sha${alg.slice(2)}`, Buffer.from(input), privateKey)
    found.push(
      ['in DER', der],
      ['in DER, padded to the length', Buffer.concat([der, Buffer.alloc(200)]).subarray(0, good.length)],
    )
    found.push(...orderVariants(alg, good))
  }
  if (alg.startsWith('PS')) {
    for (const saltLength of [0, 20, 100]) {
      found.push([`with ${saltLength} bytes of salt`, signInput(alg, privateKey, Buffer.from(input), saltLength)])
    }
    found.push(['in the older padding', signInput(`RS${alg.slice(2)}`, privateKey, Buffer.from(input))])
  }
  if (alg.startsWith('RS')) {
    const other = alg === 'RS256' ? 'RS512' : 'RS256'
    found.push(['with another digest', signInput(other, privateKey, Buffer.from(input))])
    found.push(['in the newer padding', signInput(`PS${alg.slice(2)}`, privateKey, Buffer.from(input))])
  }
  if (alg.startsWith('Ed')) {
    // S + L stands for the same number, but only the smaller one may be written (RFC 8032 §5.1.7).
    const order = 2n ** 252n + 27742317777372353535851937790883648493n
    const s = BigInt(`0x${Buffer.from(second).reverse().toString('hex')}`) + order
    found.push([
      'S not reduced',
      Buffer.concat([first, Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()]),
    ])
  }
  expect(publicKey.type).toBe('public')
  return found
}

const ORDERS: Readonly<Record<string, bigint>> = {
  ES256: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  ES384: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  ES512: BigInt(
    '0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409',
  ),
}

/** Integers at and beyond the order of the group: the verifier must not reduce them. */
function orderVariants(alg: string, good: Buffer): [string, Buffer][] {
  const bytes = good.length / 2
  const order = ORDERS[alg] as bigint
  const read = (part: Buffer) => BigInt(`0x${part.toString('hex')}`)
  const write = (value: bigint) =>
    Buffer.from(
      value
        .toString(16)
        .padStart(bytes * 2, '0')
        .slice(-bytes * 2),
      'hex',
    )
  const [r, s] = [read(good.subarray(0, bytes)), read(good.subarray(bytes))]
  return [
    ['r of the order', Buffer.concat([write(order), write(s)])],
    ['s of the order', Buffer.concat([write(r), write(order)])],
    ['s beyond the order', Buffer.concat([write(r), write(s + order)])],
    // Genuine: whoever has one signature has this one, too, and ECDSA accepts both.
    ['s mirrored', Buffer.concat([write(r), write(order - s)])],
  ]
}

/** @returns a token whose signature begins with a zero byte, and the same without that byte */
function withLeadingZero({ alg, sign: signWith }: Subject): [string, string] {
  for (let i = 0; ; i += 1) {
    const input = inputOf(alg, { i })
    const signature = signWith(input)
    if (signature[0] === 0) return [tokenOf(input, signature), tokenOf(input, signature.subarray(1))]
  }
}

describe.each(subjects)('$alg', (one) => {
  it('accepts what the key signed', async () => {
    for (let i = 0; i < 5; i += 1) {
      const input = inputOf(one.alg, { i })
      const token = tokenOf(input, one.sign(input))
      expect(await isSignatureValid(token, one.publicKey, one.alg)).toBe(true)
      expect(await saysNow(token, one.publicKey, one.alg)).toBe(true)
    }
  })

  it('agrees with jose on every wrong and odd signature', async () => {
    const input = inputOf(one.alg)
    const disagreements: string[] = []
    let accepted = 0
    for (const [what, signature] of variants(one)) {
      const token = tokenOf(input, signature)
      const ours = await isSignatureValid(token, one.publicKey, one.alg)
      if (ours) accepted += 1
      if (ours !== (await referenceSays(token, one.publicKey, one.alg))) disagreements.push(what)
      if (ours !== (await saysNow(token, one.publicKey, one.alg))) disagreements.push(`${what}, told at once`)
    }
    expect(disagreements).toEqual([])
    expect(accepted).toBe(one.alg.startsWith('ES') ? 1 : 0)
  })

  it('accepts nothing from a key of another type, or of another curve', async () => {
    const input = inputOf(one.alg)
    const token = tokenOf(input, one.sign(input))
    for (const other of subjects) {
      if (other === one) continue
      expect(await isSignatureValid(token, other.publicKey, one.alg)).toBe(false)
      expect(await saysNow(token, other.publicKey, one.alg)).toBe(false)
    }
  })
})

describe('a genuine signature', () => {
  it.each(subjects)('of $alg is none under any other algorithm', async (one) => {
    for (const alg of ALGORITHMS) {
      const same = alg === one.alg || (alg.startsWith('Ed') && one.alg.startsWith('Ed'))
      const input = inputOf(alg)
      expect(await isSignatureValid(tokenOf(input, one.sign(input)), one.publicKey, alg)).toBe(same)
    }
  })
})

describe('an RSA signature', () => {
  it.each(subjects.filter(({ alg }) => /^[RP]S/.test(alg)))('of $alg is as long as the modulus', async (one) => {
    // One signature in 256 begins with a zero byte; without it, it stands for the same number.
    const [token, shortened] = withLeadingZero(one)
    expect(await isSignatureValid(token, one.publicKey, one.alg)).toBe(true)
    expect(await isSignatureValid(shortened, one.publicKey, one.alg)).toBe(false)
    expect(await saysNow(shortened, one.publicKey, one.alg)).toBe(false)
  })

  it('of another size of key is as long as that', async () => {
    for (const modulusLength of [2048, 2056, 3072, 4096]) {
      const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength })
      const input = inputOf('PS256')
      const token = tokenOf(input, signInput('PS256', privateKey, Buffer.from(input)))
      expect(await isSignatureValid(token, publicKey, 'PS256')).toBe(true)
    }
  })
})

describe('an ECDSA signature', () => {
  it.each(['ES256', 'ES384', 'ES512'])('of %s is read whatever its integers begin with', async (alg) => {
    const one = subjects.find((candidate) => candidate.alg === alg)!
    const seen = new Set<string>()
    // A leading zero byte comes once in 256 signatures; with P-521 nearly always.
    const wanted = alg === 'ES512' ? 2 : 4
    for (let i = 0; seen.size < wanted && i < 20_000; i += 1) {
      const input = inputOf(alg, { i })
      const signature = one.sign(input)
      const kinds = [signature[0]!, signature[signature.length / 2]!].map((byte, part) =>
        byte === 0 ? `zero ${part}` : byte >= 0x80 ? `high ${part}` : '',
      )
      const isNew = kinds.some((kind) => kind !== '' && !seen.has(kind))
      if (!isNew) continue
      for (const kind of kinds) if (kind !== '') seen.add(kind)
      expect(await isSignatureValid(tokenOf(input, signature), one.publicKey, alg)).toBe(true)
    }
    expect(seen.size).toBe(wanted)
  })
})

describe('an algorithm that is not in the table', () => {
  it.each(['none', 'HS256', 'RS1', 'ES256K', '__proto__', ''])('(%s) verifies nothing', async (alg) => {
    const rsa = subjects[0]!
    const input = inputOf(alg)
    expect(await isSignatureValid(tokenOf(input, rsa.sign(input)), rsa.publicKey, alg)).toBe(false)
    expect(await saysNow(tokenOf(input, rsa.sign(input)), rsa.publicKey, alg)).toBe(false)
  })
})

describe('a turn of the event loop', () => {
  const one = subjects.find(({ alg }) => alg === 'ES512')!
  const input = inputOf(one.alg)
  const token = tokenOf(input, one.sign(input))

  it('has time for some checks, and the next one again', async () => {
    for (let turn = 0; turn < 3; turn += 1) {
      await new Promise(setImmediate)
      let checked = 0
      while (isSignatureValidNow(token, one.publicKey, one.alg) === true) checked += 1
      expect(checked).toBeGreaterThan(0)
      expect(isSignatureValidNow(token, one.publicKey, one.alg)).toBeUndefined()
    }
  })

  it('leaves none of those that wait behind, and lets nobody overtake them', async () => {
    const order: number[] = []
    const all = Array.from({ length: 100 }, (_, i) =>
      isSignatureValid(token, one.publicKey, one.alg).then((valid) => {
        expect(valid).toBe(true)
        order.push(i)
      }),
    )
    await new Promise(setImmediate)
    expect(isSignatureValidNow(token, one.publicKey, one.alg)).toBeUndefined()
    await Promise.all(all)
    expect(order).toHaveLength(100)
    expect(await saysNow(token, one.publicKey, one.alg)).toBe(true)
  })
})

describe('a flood of signatures', () => {
  it('is checked as far as the queue goes; the rest is told to come again, and the queue drains', async () => {
    const one = subjects.find(({ alg }) => alg === 'ES256')!
    const input = inputOf('ES256')
    const token = tokenOf(input, one.sign(input))
    const results = await Promise.allSettled(
      Array.from({ length: 3_000 }, () => isSignatureValid(token, one.publicKey, 'ES256')),
    )
    const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as CodedError] : []))
    expect(results.filter((result) => result.status === 'fulfilled' && result.value)).toHaveLength(1_032)
    expect(refused).toHaveLength(3_000 - 1_032)
    expect(refused.every(({ code }) => code === 'overloaded')).toBe(true)
    expect(await isSignatureValid(token, one.publicKey, 'ES256')).toBe(true)
  })

  it('of the wrong length is answered without piling up', async () => {
    const one = subjects.find(({ alg }) => alg === 'ES256')!
    const token = tokenOf(inputOf('ES256'), Buffer.alloc(63, 1))
    const results = await Promise.all(
      Array.from({ length: 5_000 }, () => isSignatureValid(token, one.publicKey, 'ES256')),
    )
    expect(results.some(Boolean)).toBe(false)
  })
})
