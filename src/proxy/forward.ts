import type { IncomingMessage, ServerResponse } from 'node:http'
import { PassThrough, type Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { refusal, UpstreamError, type CodedError, type UpstreamCode } from '../errors.ts'
import type { Permit } from '../gate/permit.ts'
import { addForwardedFields } from '../http/forwarded.ts'
import { findField, keepResponseFields, type RequestFieldFilter } from '../http/headers.ts'
import type { Exchange } from './exchange.ts'
import type { Upstream } from './upstream.ts'

/**
 * Carries a permitted request to the upstream and its response back, streaming both bodies.
 *
 * @param onFailure - called once if it fails, with an UpstreamError (or a Refusal, for a request that undici will not send).
 * When the response had begun by then, the caller's connection was cut, so that the body cannot be mistaken for complete.
 */
export type Forward = (permit: Permit, exchange: Exchange, onFailure: (error: CodedError) => void) => void

/** Creates the one function that talks to the upstream. */
export function createForward(upstream: Upstream, filter: RequestFieldFilter): Forward {
  return (permit, exchange, onFailure) => {
    const { request, peer } = exchange
    const fields = request.rawHeaders
    const headers = filter(fields, peer.trusted)
    addForwardedFields(headers, fields, peer)
    headers.push('x-request-id', exchange.requestId)
    for (const part of permit.identity) headers.push(part)
    const carrier = new ResponseCarrier(exchange, onFailure)
    exchange.cancel = () => carrier.cancel()
    upstream.dispatch(
      {
        // The bytes decided on are the bytes forwarded.
        path: request.url as string,
        method: request.method as Dispatcher.HttpMethod,
        headers,
        body: hasBody(request) ? openBody(exchange) : null,
      },
      carrier,
    )
  }
}

function hasBody({ rawHeaders }: IncomingMessage): boolean {
  if (findField(rawHeaders, 'transfer-encoding').count > 0) return true
  return (findField(rawHeaders, 'content-length').value ?? '0') !== '0'
}

/**
 * The request body as a stream of its own: undici destroys the body of a request that fails, and destroying the request
 * itself would take the caller's connection along, and with it the answer.
 */
function openBody({ request, response, expectsContinue, cancel }: Exchange): Readable {
  if (expectsContinue) response.writeContinue()
  const body = new PassThrough()
  body.on('error', () => undefined)
  request.on('error', () => cancel?.())
  request.pipe(body)
  // What is left of a body that the upstream did not want: read it, or the connection could not serve another request.
  response.once('finish', () => {
    if (!request.complete) request.unpipe().resume()
  })
  return body
}

class ResponseCarrier implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse
  readonly #onFailure: (error: CodedError) => void
  #controller: Dispatcher.DispatchController | undefined
  #cancelled = false

  constructor({ response }: Exchange, onFailure: (error: CodedError) => void) {
    this.#response = response
    this.#onFailure = onFailure
  }

  /** The caller is gone: the upstream need not go on. */
  cancel(): void {
    this.#cancelled = true
    this.#controller?.abort(new UpstreamError('caller_gone'))
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#cancelled) controller.abort(new UpstreamError('caller_gone'))
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return
    const response = this.#response
    response.writeHead(status, keepResponseFields((controller.rawHeaders ?? []) as Buffer[]))
    // A body that comes with the header leaves in one piece with it; a header that comes alone must not wait.
    process.nextTick(() => {
      if (!response.writableEnded) response.flushHeaders()
    })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#response.write(chunk)) return
    controller.pause()
    this.#response.once('drain', () => controller.resume())
  }

  onResponseEnd(): void {
    this.#response.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#response.headersSent) this.#response.destroy()
    this.#onFailure(this.#cancelled ? new UpstreamError('caller_gone') : toCodedError(error))
  }
}

const CODE_OF: Readonly<Record<string, UpstreamCode>> = {
  UND_ERR_CONNECT_TIMEOUT: 'upstream_timeout',
  UND_ERR_HEADERS_TIMEOUT: 'upstream_timeout',
  UND_ERR_BODY_TIMEOUT: 'upstream_timeout',
  UND_ERR_SOCKET: 'upstream_reset',
  ECONNRESET: 'upstream_reset',
  EPIPE: 'upstream_reset',
  UND_ERR_HEADERS_OVERFLOW: 'upstream_invalid_response',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'upstream_invalid_response',
  UND_ERR_RES_EXCEEDED_MAX_SIZE: 'upstream_invalid_response',
  ERR_INVALID_CHAR: 'upstream_invalid_response',
  ERR_HTTP_INVALID_STATUS_CODE: 'upstream_invalid_response',
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: 'caller_gone',
}

/** undici's error as one of ours, by its code; the code goes to the log. */
function toCodedError(error: Error): CodedError {
  const code = readCode(error)
  // undici checks the request once more before it sends it; what it will not send, the caller should not have sent.
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED')
    return refusal('header_invalid', { cause: code })
  if (code.startsWith('HPE_')) return new UpstreamError('upstream_invalid_response', { cause: code })
  return new UpstreamError(CODE_OF[code] ?? 'upstream_unreachable', { cause: code })
}

function readCode(error: Error): string {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return readCode(error.errors[0])
  const code = (error as { code?: unknown }).code
  return typeof code === 'string' ? code : error.name
}
