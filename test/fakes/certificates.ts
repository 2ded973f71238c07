import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'

/** A certificate with its private key, as TLS servers take them. */
export interface Identity {
  /** PEM. */
  readonly cert: string
  readonly key: string
}

/** A certificate authority made for one test. */
export interface Authority {
  /** Its own certificate in PEM. */
  readonly certificate: string
  /** A certificate for host names and addresses. */
  issue(...hosts: string[]): Identity
}

/** Makes an authority with a key of its own; its certificates are good for a day around now. */
export function createAuthority(name: string): Authority {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const subject = toName(name)
  const own: Subject = { name: subject, publicKey: keys.publicKey, extensions: [basicConstraints()] }
  const issue = (more: Subject) => toPem(toCertificate(more, subject, keys.privateKey))
  return {
    certificate: issue(own),
    issue(...hosts) {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      return {
        cert: issue({ name: toName(hosts[0] as string), publicKey, extensions: [subjectAltName(hosts)] }),
        key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      }
    },
  }
}

interface Subject {
  readonly name: Buffer
  readonly publicKey: KeyObject
  readonly extensions: readonly Buffer[]
}

/** RFC 5280 §4.1. */
function toCertificate({ name, publicKey, extensions }: Subject, issuer: Buffer, key: KeyObject): Buffer {
  // ecdsa-with-SHA256
  const algorithm = der(0x30, oid(1, 2, 840, 10045, 4, 3, 2))
  const day = 86_400_000
  const body = der(
    0x30,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    algorithm,
    issuer,
    der(0x30, toTime(Date.now() - day), toTime(Date.now() + day)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, der(0x30, ...extensions)),
  )
  const signature = sign('sha256', body, key)
  return der(0x30, body, algorithm, der(0x03, Buffer.from([0]), signature))
}

function basicConstraints(): Buffer {
  const value = der(0x30, der(0x01, Buffer.from([0xff])))
  return der(0x30, oid(2, 5, 29, 19), der(0x01, Buffer.from([0xff])), der(0x04, value))
}

function subjectAltName(hosts: readonly string[]): Buffer {
  const names = hosts.map((host) =>
    isIP(host) === 4 ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host)),
  )
  return der(0x30, oid(2, 5, 29, 17), der(0x04, der(0x30, ...names)))
}

function toName(text: string): Buffer {
  return der(0x30, der(0x31, der(0x30, oid(2, 5, 4, 3), der(0x0c, Buffer.from(text)))))
}

function toTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\..*/g, '')
  return der(0x18, Buffer.from(`${digits}Z`))
}

function oid(first: number, second: number, ...rest: number[]): Buffer {
  const bytes = [first * 40 + second, ...rest.flatMap(toBase128)]
  return der(0x06, Buffer.from(bytes))
}

function toBase128(value: number): number[] {
  return value < 0x80 ? [value] : [...toBase128(value >> 7).map((byte) => byte | 0x80), value & 0x7f]
}

/** A value with its tag and length. */
function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}

function toPem(certificate: Buffer): string {
  const lines = certificate.toString('base64').match(/.{1,64}/g) as string[]
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}
