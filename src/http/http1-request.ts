import { refusal, type Refusal } from '../errors.ts'
import { findField, type FieldList } from './headers.ts'

/** What decides how a request of HTTP/1 is framed. */
export interface Http1Frame {
  readonly httpVersionMajor: number
  readonly httpVersionMinor: number
  readonly rawHeaders: FieldList
}

/**
 * Why a request must be refused whose frame the parser let through: it takes any version for HTTP/1.x, and chunks from
 * those that cannot know them (RFC 9112 §6.1), so that whoever is in between may see another end of the message.
 *
 * @returns `header_invalid`, or `undefined` for most
 */
export function findHttp1Fault({ httpVersionMajor, httpVersionMinor, rawHeaders }: Http1Frame): Refusal | undefined {
  if (httpVersionMajor === 1 && httpVersionMinor === 1) return undefined
  if (httpVersionMajor !== 1) return refusal('header_invalid', { reason: 'version' })
  const isChunked = findField(rawHeaders, 'transfer-encoding').count > 0
  return isChunked ? refusal('header_invalid', { reason: 'transfer-encoding in HTTP/1.0' }) : undefined
}
