import type { IncomingMessage, ServerResponse } from 'node:http'
import type { CodedError } from '../errors.ts'
import type { Permit } from '../gate/permit.ts'
import { addForwardedFields } from '../http/forwarded.ts'
import { findField, keepResponseFields, type RequestFieldFilter } from '../http/headers.ts'
import type { ResponseHead } from '../http/response-head.ts'
import type { Connection, UpstreamRequest } from './connection.ts'
import type { Exchange } from './exchange.ts'
import type { Upstream } from './upstream.ts'

/**
 * Carries a permitted request to the upstream and its response back, streaming both bodies.
 *
 * @param onFailure - called once if it fails, with an UpstreamError. When the response had begun by then, the caller's
 * connection was cut, so that the body cannot be mistaken for complete.
 */
export type Forward = (permit: Permit, exchange: Exchange, onFailure: FailureHandler) => void

type FailureHandler = (exchange: Exchange, error: CodedError) => void

/** Creates the one function that talks to the upstream. */
export function createForward(upstream: Upstream, filter: RequestFieldFilter): Forward {
  return (permit, exchange, onFailure) => {
    const carrier = new Carrier(toHead(permit, exchange, filter), exchange, onFailure)
    exchange.carrier = carrier
    if (exchange.expectsContinue && carrier.body !== undefined) exchange.response.writeContinue()
    upstream.dispatch(carrier)
  }
}

/** The head of the request to the upstream: what may travel on, then what only this server sets. */
function toHead(permit: Permit, { request, requestId, peer }: Exchange, filter: RequestFieldFilter): string {
  const { rawHeaders } = request
  const fields = filter(rawHeaders, peer.trusted)
  addForwardedFields(fields, rawHeaders, peer)
  // The bytes decided on are the bytes forwarded.
  let head = `${request.method as string} ${request.url as string} HTTP/1.1\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i] as string}: ${fields[i + 1] as string}\r\n`
  const { identity } = permit
  for (let i = 0; i < identity.length; i += 2) head += `${identity[i] as string}: ${identity[i + 1] as string}\r\n`
  if (isChunked(request)) head += 'transfer-encoding: chunked\r\n'
  return `${head}x-request-id: ${requestId}\r\nconnection: keep-alive\r\n\r\n`
}

function isChunked({ rawHeaders }: IncomingMessage): boolean {
  return findField(rawHeaders, 'transfer-encoding').count > 0
}

function hasBody(request: IncomingMessage): boolean {
  return isChunked(request) || (findField(request.rawHeaders, 'content-length').value ?? '0') !== '0'
}

/** A body that is complete and not longer than this leaves in one piece with the header. */
const SMALL_BODY_BYTES = 16 * 1024

/** One request to the upstream, and the way of its response back to the caller. */
class Carrier implements UpstreamRequest {
  readonly head: string
  readonly method: string
  readonly body: IncomingMessage | undefined
  readonly chunked: boolean
  connection: Connection | undefined = undefined
  cancelled = false
  blocked = false
  readonly #exchange: Exchange
  readonly #response: ServerResponse
  readonly #onFailure: FailureHandler

  constructor(head: string, exchange: Exchange, onFailure: FailureHandler) {
    const { request } = exchange
    this.head = head
    this.method = request.method as string
    this.chunked = isChunked(request)
    this.body = hasBody(request) ? request : undefined
    this.#exchange = exchange
    this.#response = exchange.response
    this.#onFailure = onFailure
  }

  /** The caller is gone: the upstream need not go on. */
  cancel(): void {
    this.cancelled = true
    this.connection?.cancel()
  }

  onHead({ status, fields }: ResponseHead, followed: boolean): void {
    this.#response.writeHead(status, keepResponseFields(fields))
    // A body that came with the head leaves in one piece with it; a head that came alone must not wait.
    if (!followed) this.#response.flushHeaders()
  }

  onData(chunk: Buffer, last: boolean): void {
    const response = this.#response
    if (last) {
      // As text it is joined with the header into one write; a view of the read buffer could not be kept anyway.
      if (chunk.length <= SMALL_BODY_BYTES) response.end(chunk.toString('latin1'), 'latin1')
      else response.end(Buffer.from(chunk))
    } else if (!response.write(Buffer.from(chunk)) && !this.blocked) {
      this.blocked = true
      response.once('drain', () => {
        this.blocked = false
        this.connection?.resume()
      })
    }
  }

  onEnd(): void {
    this.#response.end()
  }

  onFailure(error: CodedError): void {
    if (this.#response.headersSent) this.#response.destroy()
    this.#onFailure(this.#exchange, error)
  }
}
