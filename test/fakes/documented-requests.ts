import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * The requests that the documents of Auth0 and WorkOS show, character by character and with their mistakes, in
 * `documents/`; only the placeholders are filled in.
 *
 * - `auth0-device.har`: the header says form, the body is JSON, and the URN in it is percent-encoded
 * - `auth0-code.har`: authorization code of a confidential client
 * - `auth0-pkce.har`: with PKCE, of a native application
 * - `auth0-pkce.curl`: the same as a page with samples in many languages has it
 */
export type DocumentName = 'auth0-device.har' | 'auth0-code.har' | 'auth0-pkce.har' | 'auth0-pkce.curl'

/** WorkOS Connect, device code grant: the parameters of `POST /oauth2/token`, as listed; "?" marks what may be left out. */
export const WORKOS_DEVICE_PARAMETERS = ['grant_type', 'device_code', 'client_id', 'client_secret?'] as const

/** A request in HAR, as far as these have it. */
interface Har {
  readonly method: string
  readonly url: string
  readonly headers: { name: string; value: string }[]
  readonly postData: { mimeType?: string; text: string }
}

/** A document with its placeholders filled in. */
export function readDocument(name: DocumentName, values: Readonly<Record<string, string>>): string {
  const text = readFileSync(join(import.meta.dirname, 'documents', name), 'utf8').trimEnd()
  return Object.entries(values).reduce((filled, [placeholder, value]) => filled.replaceAll(placeholder, value), text)
}

export interface DocumentedAnswer {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
  readonly headers: Headers
}

/**
 * Sends a request in HAR. Its own host is replaced, as a caller does that points to another one.
 *
 * @param correct - changes what is sent
 */
export async function sendHar(
  text: string,
  origin: string,
  correct: (har: Har) => void = () => undefined,
): Promise<DocumentedAnswer> {
  const har = JSON.parse(text) as Har
  correct(har)
  const response = await fetch(har.url.replace(/^https:\/\/[^/]+/, origin), {
    method: har.method,
    headers: har.headers.map(({ name, value }): [string, string] => [name, value]),
    body: har.postData.text,
  })
  const body = (await response.json()) as DocumentedAnswer['body']
  return { status: response.status, body, headers: response.headers }
}
