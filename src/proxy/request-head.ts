import type { Permit } from '../gate/permit.ts'
import { addForwardedFields } from '../http/forwarded.ts'
import { findField, type FieldList, type RequestFieldFilter } from '../http/headers.ts'
import type { CallerRequest } from '../server/caller.ts'
import type { Exchange } from './exchange.ts'

/** The head of a request of HTTP/1.1 to the upstream: what may travel on, then what only this server sets. */
export function toHttp1Head(
  permit: Permit,
  { request, requestId, peer }: Exchange,
  filter: RequestFieldFilter,
): string {
  const { rawHeaders } = request
  const fields = filter(rawHeaders, peer.trusted)
  addForwardedFields(fields, rawHeaders, peer)
  // The bytes decided on are the bytes forwarded.
  let head = `${request.method as string} ${request.url as string} HTTP/1.1\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i] as string}: ${fields[i + 1] as string}\r\n`
  const { identity } = permit
  for (let i = 0; i < identity.length; i += 2) head += `${identity[i] as string}: ${identity[i + 1] as string}\r\n`
  if (isChunked(request)) head += 'transfer-encoding: chunked\r\n'
  const connection = request.tunnel === undefined ? 'keep-alive' : 'Upgrade\r\nupgrade: websocket'
  return `${head}x-request-id: ${requestId}\r\nconnection: ${connection}\r\n\r\n`
}

/** The same of HTTP/2, flat, with the pseudo-header fields (RFC 9113 §8.3.1), for a connection of this scheme. */
export function toHttp2Head(
  permit: Permit,
  exchange: Exchange,
  filter: RequestFieldFilter,
  scheme: 'http' | 'https',
): string[] {
  const { request, requestId, peer } = exchange
  const { rawHeaders } = request
  const fields = filter(rawHeaders, peer.trusted)
  addForwardedFields(fields, rawHeaders, peer)
  const head = [':method', request.method as string, ':scheme', scheme, ':path', request.url as string]
  for (let i = 0; i < fields.length; i += 2) {
    const name = (fields[i] as string).toLowerCase()
    head.push(name === 'host' ? ':authority' : name, fields[i + 1] as string)
  }
  head.push(...permit.identity, 'x-request-id', requestId)
  if (acceptsTrailers(rawHeaders)) head.push('te', 'trailers')
  return head
}

/** Whether the length of the body is not known before its end. */
export function isChunked({ rawHeaders }: CallerRequest): boolean {
  return findField(rawHeaders, 'transfer-encoding').count > 0
}

/** Whether there is a body: a length of 0 is none. */
export function hasBody(request: CallerRequest): boolean {
  return isChunked(request) || Number(findField(request.rawHeaders, 'content-length').value ?? 0) > 0
}

/** Whether the caller knows neither chunks nor interim responses. */
export function isHttp10({ httpVersionMajor, httpVersionMinor }: CallerRequest): boolean {
  return httpVersionMajor === 1 && httpVersionMinor === 0
}

/** Whether the caller says that it looks at trailer fields (RFC 9110 §10.1.4). */
export function acceptsTrailers(fields: FieldList): boolean {
  const { value } = findField(fields, 'te')
  return value !== undefined && /(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i.test(value)
}
