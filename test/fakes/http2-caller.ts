import { connect, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2'

/** What came back on one stream. */
export interface Http2Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly trailers: IncomingHttpHeaders | undefined
  /** The code with which the stream ended; 0 for none. */
  readonly rstCode: number
}

export interface Http2Call {
  readonly stream: ClientHttp2Stream
  readonly answer: Promise<Http2Answer>
}

/** A caller on one connection of HTTP/2. */
export interface Http2Caller {
  readonly session: ClientHttp2Session
  /** Sends a request; with `body: undefined` it ends with its header, with a stream it is to be ended by the test. */
  start(path: string, options?: Http2RequestOptions): Http2Call
  get(path: string, options?: Http2RequestOptions): Promise<Http2Answer>
  close(): void
}

export interface Http2RequestOptions {
  readonly method?: string
  readonly token?: string | undefined
  readonly headers?: Readonly<Record<string, string | string[]>>
  /** Sent whole; `open` for a body that the test writes itself. */
  readonly body?: string | Buffer | 'open' | undefined
  readonly trailers?: Readonly<Record<string, string>>
}

/** Opens a connection, by prior knowledge in the clear, or over TLS with the certificate of an authority. */
export async function openCaller(port: number, ca?: string): Promise<Http2Caller> {
  const session = ca === undefined ? connect(`http://127.0.0.1:${port}`) : connect(`https://127.0.0.1:${port}`, { ca })
  session.on('error', () => undefined)
  await new Promise((resolve, reject) => session.once('connect', resolve).once('error', reject))
  const start = (path: string, options: Http2RequestOptions = {}): Http2Call => {
    const { method, token, headers, body, trailers } = options
    const stream = session.request(
      {
        ':method': method ?? (body === undefined ? 'GET' : 'POST'),
        ':path': path,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      { endStream: body === undefined, waitForTrailers: trailers !== undefined },
    )
    if (trailers !== undefined) stream.on('wantTrailers', () => stream.sendTrailers({ ...trailers }))
    if (body !== undefined && body !== 'open') stream.end(body)
    return { stream, answer: collect(stream) }
  }
  return {
    session,
    start,
    get: (path, options) => start(path, options).answer,
    close: () => session.destroy(),
  }
}

function collect(stream: ClientHttp2Stream): Promise<Http2Answer> {
  return new Promise((resolve) => {
    const parts: Buffer[] = []
    let headers: IncomingHttpHeaders = {}
    let trailers: IncomingHttpHeaders | undefined
    stream.on('response', (received) => (headers = received))
    stream.on('trailers', (received) => (trailers = received))
    stream.on('data', (chunk: Buffer) => void parts.push(chunk))
    stream.on('error', () => undefined)
    // Reset without an error, the library waits forever for what it has still to write.
    stream.on('end', () => setImmediate(() => stream.closed && stream.destroy()))
    stream.on('close', () =>
      resolve({
        status: Number(headers[':status'] ?? 0),
        headers,
        body: Buffer.concat(parts),
        trailers,
        rstCode: stream.rstCode ?? 0,
      }),
    )
  })
}
