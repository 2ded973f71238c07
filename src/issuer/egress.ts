import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import type { Dispatcher } from 'undici'
import request from 'undici/lib/api/api-request.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import { holdsCertificates } from '../util/certificates.ts'
import { EgressError, toEgressError } from './egress-error.ts'
import type { Proxy } from './proxy.ts'

export { EgressError } from './egress-error.ts'

/** Largest response read from an issuer, in bytes; a key set of a hundred RSA keys has a tenth of it. */
export const MAX_RESPONSE_BYTES = 1024 * 1024
/** For one document of an issuer, from the call to the last byte. */
export const FETCH_TIMEOUT_MS = 5_000
const CONNECT_TIMEOUT_MS = 3_000
/** Node's own 250 ms gives up on a healthy address family when the network is merely slow. */
const FAMILY_ATTEMPT_TIMEOUT_MS = 1_000

export interface EgressRequest {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string | undefined
  /** From the call to the last byte of the response, in milliseconds. */
  readonly timeoutMs: number
}

export interface EgressResponse {
  readonly status: number
  /** Header fields, names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The only outbound door to issuers. */
export interface Egress {
  /**
   * Sends one request and reads the whole response. Redirects are not followed, nothing is retried, nothing is unpacked.
   *
   * @throws EgressError when there is no complete response
   */
  send(url: string, request: EgressRequest): Promise<EgressResponse>
  close(): Promise<void>
}

export interface EgressOptions {
  /** A file with certificates (PEM) to trust instead of the well-known authorities. Read again for every request. */
  readonly caFile?: string | undefined
  /** Files with a certificate to show and its private key (PEM). Read again for every request. */
  readonly certificateFile?: string | undefined
  readonly keyFile?: string | undefined
  readonly proxy?: Proxy | undefined
}

/** Creates the door with its own connections and limits: 3 s to connect, 1 MiB per response. */
export function createEgress({ caFile, certificateFile, keyFile, proxy }: EgressOptions = {}): Egress {
  const files = { ca: caFile, cert: certificateFile, key: keyFile }
  const isPlain = Object.values(files).every((file) => file === undefined)
  const source = isPlain
    ? toSource(createDispatcher(proxy, {}))
    : createRotatingSource(files, (tls) => createDispatcher(proxy, tls))
  return {
    async send(url, options) {
      try {
        return await send(await source.current(), url, options)
      } catch (error) {
        throw toEgressError(error)
      }
    },
    close: () => source.close(),
  }
}

/** PEM texts. */
type TlsTexts = Readonly<Partial<Record<'ca' | 'cert' | 'key', string>>>

/** Only a proxy needs all of undici: loading it takes 30 ms more of the start. */
function createDispatcher(proxy: Proxy | undefined, tls: TlsTexts): Dispatcher | Promise<Dispatcher> {
  const timeouts = {
    timeout: CONNECT_TIMEOUT_MS,
    autoSelectFamilyAttemptTimeout: FAMILY_ATTEMPT_TIMEOUT_MS,
    allowH2: false,
  }
  const limits = {
    connect: { ...timeouts, ...tls },
    maxResponseSize: MAX_RESPONSE_BYTES,
    connections: 8,
    keepAliveTimeout: 4_000,
    allowH2: false,
  }
  if (proxy === undefined) return new Agent(limits)
  return import('undici').then(
    ({ EnvHttpProxyAgent }) =>
      new EnvHttpProxyAgent({
        ...limits,
        httpProxy: proxy.url,
        httpsProxy: proxy.url,
        noProxy: proxy.bypass,
        connectTimeout: CONNECT_TIMEOUT_MS,
        proxyTls: timeouts,
        requestTls: { ...timeouts, ...tls },
      }),
  )
}

/** Where the connections of the moment come from. */
interface DispatcherSource {
  current(): Dispatcher | Promise<Dispatcher>
  close(): Promise<void>
}

function toSource(dispatcher: Dispatcher | Promise<Dispatcher>): DispatcherSource {
  return { current: () => dispatcher, close: async () => (await dispatcher).destroy() }
}

type TlsFiles = Readonly<Record<keyof TlsTexts, string | undefined>>

/**
 * Connections with the certificates of files, and new ones when their content changes. While one cannot be read or is
 * written only in part, the last content that could be used is kept.
 */
function createRotatingSource(
  files: TlsFiles,
  create: (tls: TlsTexts) => Dispatcher | Promise<Dispatcher>,
): DispatcherSource {
  let known: { readonly tls: TlsTexts; readonly dispatcher: Dispatcher | Promise<Dispatcher> } | undefined
  return {
    async current() {
      const tls = await readTexts(files)
      const changed = TLS_TEXTS.some((name) => tls[name] !== known?.tls[name])
      if (changed && whyUnusable(tls) === undefined) {
        // Requests under way end on the connections they have.
        void closeLater(known?.dispatcher)
        known = { tls, dispatcher: create(tls) }
      }
      if (known === undefined) throw new EgressError(whyUnusable(tls) ?? 'unknown', true)
      return known.dispatcher
    },
    close: async () => (await known?.dispatcher)?.destroy(),
  }
}

async function closeLater(dispatcher: Dispatcher | Promise<Dispatcher> | undefined): Promise<void> {
  try {
    await (await dispatcher)?.close()
  } catch {
    // It is gone all the same.
  }
}

const TLS_TEXTS = ['ca', 'cert', 'key'] as const

async function readTexts(files: TlsFiles): Promise<TlsTexts> {
  const texts = TLS_TEXTS.flatMap((name) => {
    const file = files[name]
    return file === undefined
      ? []
      : [
          readFile(file, 'utf8').then(
            (text) => [name, text],
            () => [name, ''],
          ),
        ]
  })
  return Object.fromEntries(await Promise.all(texts)) as TlsTexts
}

function whyUnusable({ ca, cert, key }: TlsTexts): string | undefined {
  if (ca !== undefined && !holdsCertificates(ca)) return 'ca_file_unusable'
  if (cert === undefined) return undefined
  try {
    if (!holdsCertificates(cert)) return 'client_certificate_unusable'
    createSecureContext({ cert, key })
    return undefined
  } catch {
    return 'client_certificate_unusable'
  }
}

async function send(dispatcher: Dispatcher, url: string, options: EgressRequest): Promise<EgressResponse> {
  const { origin, pathname, search } = new URL(url)
  const response = await request.call(dispatcher, {
    origin,
    path: pathname + search,
    method: options.method,
    headers: { 'accept-encoding': 'identity', 'user-agent': 'bearward', ...options.headers },
    body: options.body ?? null,
    signal: AbortSignal.timeout(options.timeoutMs),
  })
  const headers = plainHeaders(response.headers)
  const encoding = headers['content-encoding']?.toLowerCase()
  if (encoding !== undefined && encoding !== 'identity') {
    response.body.on('error', ignore).destroy()
    throw new EgressError('response_encoded', false)
  }
  return { status: response.statusCode, headers, body: await response.body.text() }
}

/** A body that is given up says so by an error that nobody needs. */
function ignore(): void {}

function plainHeaders(headers: Dispatcher.ResponseData['headers']): Record<string, string> {
  const plain: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) plain[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return plain
}
