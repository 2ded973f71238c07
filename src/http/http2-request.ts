import { METHODS } from 'node:http'
import { refusal, type Refusal } from '../errors.ts'
import type { FieldList } from './headers.ts'

/** The header of an HTTP/2 request in the form of HTTP/1.1. */
export interface RequestHead {
  /** Empty when it is missing. */
  readonly method: string
  /** Empty when it is missing. */
  readonly target: string
  /** Flat list: `host` first, made of `:authority`; no pseudo-header fields; cookies as one field. */
  readonly fields: string[]
  /** Why the request must be refused; the rest is for the log then. */
  readonly fault: Refusal | undefined
}

/** Fields about one connection, which HTTP/2 does not have (RFC 9113 §8.2.2). */
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

/** Methods in any other spelling would fall under no rule, and a backend that ignores case would still know them. */
const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS)

/** What a field costs beside its characters (RFC 9113 §6.5.2). */
const FIELD_OVERHEAD_BYTES = 32

interface Draft {
  readonly pseudo: Map<string, string>
  readonly fields: string[]
  host: string | undefined
  length: string | undefined
  /** Where in `fields` the cookies are; -1 for nowhere. */
  cookieAt: number
  bytes: number
  /** The first thing found wrong. */
  reason: string | undefined
}

/**
 * Reads the header of an HTTP/2 request into the form in which the gate decides and HTTP/1.1 carries (RFC 9113 §8.3). The
 * library refuses most of what is malformed before; here everything is checked that a decision or a message to the
 * upstream rests on.
 *
 * @param raw - all fields as received, pseudo-header fields included
 * @param ended - whether the request has no body
 * @param maxBytes - largest header: names, values, and 32 bytes for each field
 */
export function readHttp2Request(raw: FieldList, ended: boolean, maxBytes: number): RequestHead {
  const draft: Draft = {
    pseudo: new Map(),
    fields: ['host', ''],
    host: undefined,
    length: undefined,
    cookieAt: -1,
    bytes: 0,
    reason: undefined,
  }
  for (let i = 0; i < raw.length; i += 2) readField(raw[i] as string, raw[i + 1] as string, draft)
  const { pseudo, fields } = draft
  const authority = pseudo.get(':authority')
  fields[1] = authority ?? draft.host ?? ''
  // HTTP/1.1 tells by a field that there is a body, HTTP/2 by what follows.
  if (!ended && draft.length === undefined) fields.push('transfer-encoding', 'chunked')
  const method = pseudo.get(':method') ?? ''
  return { method, target: pseudo.get(':path') ?? '', fields, fault: findFault(draft, ended, maxBytes) }
}

function readField(name: string, value: string, draft: Draft): void {
  draft.bytes += name.length + value.length + FIELD_OVERHEAD_BYTES
  if (name.startsWith(':')) return readPseudo(name, value, draft)
  if (name === 'host') {
    if (draft.host !== undefined) draft.reason ??= 'host'
    draft.host = value
  } else if (name === 'cookie' && draft.cookieAt >= 0) {
    // Split for the sake of compression (RFC 9113 §8.2.3); two fields would be read differently by different backends.
    draft.fields[draft.cookieAt] = `${draft.fields[draft.cookieAt] as string}; ${value}`
  } else {
    if (name === 'cookie') draft.cookieAt = draft.fields.length + 1
    else checkField(name, value, draft)
    draft.fields.push(name, value)
  }
}

function checkField(name: string, value: string, draft: Draft): void {
  if (name === 'content-length') {
    if (draft.length !== undefined || !/^\d{1,15}$/.test(value)) draft.reason ??= name
    draft.length = value
  } else if (CONNECTION_SPECIFIC.has(name) || (name === 'te' && value.toLowerCase() !== 'trailers')) {
    draft.reason ??= name
  } else if (/[A-Z]/.test(name)) draft.reason ??= 'upper-case name'
}

function readPseudo(name: string, value: string, draft: Draft): void {
  const isKnown = name === ':method' || name === ':scheme' || name === ':authority' || name === ':path'
  // `:protocol` makes a CONNECT an extended one, and is refused as such.
  if ((!isKnown && name !== ':protocol') || draft.pseudo.has(name)) draft.reason ??= 'pseudo-header field'
  draft.pseudo.set(name, value)
}

function findFault(draft: Draft, ended: boolean, maxBytes: number): Refusal | undefined {
  const { pseudo, host, bytes } = draft
  if (bytes > maxBytes) return refusal('header_too_large', { bytes })
  const method = pseudo.get(':method') ?? ''
  if (method === 'CONNECT' || pseudo.has(':protocol')) return refusal('method_not_supported', { method: 'CONNECT' })
  if (draft.reason === 'host' || differs(pseudo.get(':authority'), host)) return refusal('host_invalid')
  const reason = draft.reason ?? findMissing(draft, ended)
  if (reason !== undefined) return refusal('header_invalid', { reason })
  return KNOWN_METHODS.has(method) ? undefined : refusal('method_not_supported', { method })
}

function findMissing({ pseudo, length }: Draft, ended: boolean): string | undefined {
  const scheme = pseudo.get(':scheme')
  const isWhole = pseudo.has(':method') && pseudo.has(':path') && (scheme === 'http' || scheme === 'https')
  if (!isWhole) return 'pseudo-header field'
  return ended && length !== undefined && Number(length) !== 0 ? 'content-length' : undefined
}

/** `:authority` and `Host` may both be there if they name the same (RFC 9113 §8.3.1); letter case does not matter. */
function differs(authority: string | undefined, host: string | undefined): boolean {
  return authority !== undefined && host !== undefined && authority.toLowerCase() !== host.toLowerCase()
}
