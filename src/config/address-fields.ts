/** The kinds of settings that say where something listens, or where it is reached. */
import { field, FieldFault, readString } from './fields.ts'

export interface Address {
  readonly host: string
  readonly port: number
}

/** An address to listen on: `HOST:PORT`, `[::1]:PORT`, or `:PORT` for all addresses. */
export function address(description: string) {
  const json = { type: 'string', pattern: '^(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]*):\\d{1,5}$' }
  return field({ text: description, kind: 'HOST:PORT', json }, readAddress)
}

function readAddress(value: unknown): Address {
  const match = typeof value === 'string' ? /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})$/.exec(value) : null
  const port = Number(match?.[3])
  if (match === null || port > 65535) throw new FieldFault('must be HOST:PORT, such as 0.0.0.0:8080.')
  return { host: match[1] ?? (match[2] === '' ? '0.0.0.0' : (match[2] as string)), port }
}

/** An address to listen on, or `unix:` and the absolute path of a socket. */
export function addressOrSocket(description: string) {
  const json = { type: 'string', pattern: '^(unix:/.+|(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]*):\\d{1,5})$' }
  return field({ text: description, kind: 'HOST:PORT or unix:/PATH', json }, (value) =>
    typeof value === 'string' && /^unix:/i.test(value)
      ? { path: readSocket(value).slice('unix:'.length) }
      : readAddress(value),
  )
}

/** An absolute http or https URL, kept as it was written. */
export function url(description: string) {
  const json = { type: 'string', pattern: '^https?://' }
  return field({ text: description, kind: 'URL', json }, (value) =>
    readUrl(readString(value, 'a URL'), ['http', 'https']),
  )
}

function readUrl(string: string, schemes: readonly string[]): string {
  if (/^https?:(?!\/\/[^/])/i.test(string)) throw new FieldFault('must have "//" and a host after its scheme.')
  if (/[\s\\\x00-\x1f]/.test(string)) throw new FieldFault('must not hold spaces, backslashes or control characters.')
  const parsed = URL.canParse(string) ? new URL(string) : undefined
  if (parsed === undefined || !schemes.includes(parsed.protocol.slice(0, -1))) {
    throw new FieldFault(`must be an ${schemes.join(' or ')} URL.`)
  }
  if (parsed.username !== '' || parsed.password !== '') throw new FieldFault('must not hold a user name or password.')
  if (string.includes('#')) throw new FieldFault('must not hold a fragment.')
  return string
}

/** Where the backend is: an http, https, h2c or h2 URL, or `unix:` and the absolute path of a socket. */
export function upstreamUrl(description: string) {
  const plain = { type: 'string', pattern: '^((http|https|h2c|h2)://|unix:/)' }
  return field({ text: description, kind: 'URL', json: plain }, (value) => {
    const string = readString(value, 'a URL')
    if (/^unix:/i.test(string)) return readSocket(string)
    return readUrl(string, ['http', 'https', 'h2c', 'h2'])
  })
}

/** Longest path that the system has room for. */
const MAX_SOCKET_BYTES = 107

function readSocket(string: string): string {
  const path = string.slice('unix:'.length)
  if (!string.startsWith('unix:') || !/^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._@+,:=~-]+)+$/.test(path)) {
    throw new FieldFault('must be "unix:" and the absolute path of a socket, such as unix:/run/api.sock.')
  }
  if (path.length > MAX_SOCKET_BYTES) {
    throw new FieldFault(`names a socket with more than ${MAX_SOCKET_BYTES} characters, which the system cannot open.`)
  }
  return string
}
