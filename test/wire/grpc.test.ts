import {
  Metadata,
  status,
  type Client,
  type ClientUnaryCall,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  type sendUnaryData,
} from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { ECHO, metadataWith, openGrpcClient, startGrpcServer, type GrpcServer } from '../fakes/grpc.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let server: GrpcServer
let sidecar: FakeSidecar
let client: Client
/** The calls as the server saw them. */
const calls: { metadata: Metadata; cancelled: boolean; deadline: number }[] = []

interface AnyCall {
  readonly metadata: Metadata
  readonly cancelled: boolean
  getDeadline(): Date | number
  on(event: 'cancelled', listener: () => void): unknown
}

const seen = (call: AnyCall) => {
  const entry = { metadata: call.metadata, cancelled: false, deadline: Number(call.getDeadline()) }
  call.on('cancelled', () => (entry.cancelled = true))
  calls.push(entry)
}

const handlers = {
  Unary(call: ServerUnaryCall<string, string>, done: sendUnaryData<string>) {
    seen(call)
    if (call.request === 'hang') return
    const trailers = new Metadata()
    trailers.set('x-trailer', 'at the end')
    trailers.set('x-bytes-bin', Buffer.from([0, 255]))
    if (call.request === 'fail') {
      return done({ code: status.FAILED_PRECONDITION, details: 'nót now %', metadata: trailers })
    }
    const header = new Metadata()
    header.set('x-header', 'at the start')
    call.sendMetadata(header)
    const answer = () => done(null, `heard ${call.request}`, trailers)
    if (call.request === 'slow') setTimeout(answer, 500)
    else answer()
  },
  Collect(call: ServerReadableStream<string, string>, done: sendUnaryData<string>) {
    seen(call)
    const words: string[] = []
    call.on('data', (word: string) => void words.push(word))
    call.on('end', () => done(null, words.join(' ')))
  },
  Count(call: ServerWritableStream<string, string>) {
    seen(call)
    const last = Number(call.request)
    let next = 1
    const more = () => {
      while (next <= last) if (!call.write(String(next++).padStart(1_000, ' '))) return void call.once('drain', more)
      call.end()
    }
    if (call.request === 'watch') {
      call.write('the first')
      setTimeout(() => {
        call.write('the second')
        call.end()
      }, 2_500)
    } else if (Number.isNaN(last)) call.write('the first')
    else more()
  },
  Chat(call: ServerDuplexStream<string, string>) {
    seen(call)
    call.on('data', (word: string) => void call.write(word.toUpperCase()))
    call.on('end', () => call.end())
  },
}

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  server = await startGrpcServer(handlers)
  sidecar = await startThrough(server.url)
  client = openGrpcClient(sidecar.proxyPort)
})
afterEach(() => void calls.splice(0))
afterAll(async () => {
  client.close()
  await stopSidecars()
  await issuer.stop()
  server.stop()
})

async function startThrough(
  upstream: string | object,
  more: Readonly<Record<string, unknown>> = {},
): Promise<FakeSidecar> {
  const through = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream,
      rules: [
        { name: 'chat', exact: ['/test.Echo/Chat'], scopes: { all: ['chat'] } },
        { name: 'health', prefix: ['/grpc.health.v1.Health'], access: 'public' },
      ],
      ...more,
    },
  })
  await through.ready()
  return through
}

interface UnaryResult {
  readonly error: ServiceError | null
  readonly message: string | undefined
  readonly header: Metadata | undefined
  readonly trailers: Metadata | undefined
}

/** One unary call to its end. */
function unary(message: string, options: { through?: Client; metadata?: Metadata; deadline?: number } = {}) {
  const { through = client, metadata = metadataWith(issuer.signAccessToken()), deadline } = options
  let call: ClientUnaryCall | undefined
  const result = new Promise<UnaryResult>((resolve) => {
    let header: Metadata | undefined
    let outcome: [ServiceError | null, string | undefined] | undefined
    const { path, requestSerialize, responseDeserialize } = ECHO.Unary
    call = through.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      message,
      metadata,
      deadline === undefined ? {} : { deadline: Date.now() + deadline },
      (error, reply) => (outcome = [error, reply]),
    )
    call.on('metadata', (received: Metadata) => (header = received))
    call.on('status', ({ metadata: trailers }: { metadata: Metadata }) =>
      // The status comes before or after the reply.
      setImmediate(() => resolve({ error: outcome?.[0] ?? null, message: outcome?.[1], header, trailers })),
    )
  })
  return { call: call as ClientUnaryCall, result }
}

const collectStream = (through: Client, message: string, metadata: Metadata) => {
  const { path, requestSerialize, responseDeserialize } = ECHO.Count
  const call = through.makeServerStreamRequest(path, requestSerialize, responseDeserialize, message, metadata)
  const words: string[] = []
  call.on('data', (word: string) => void words.push(word.trim()))
  const ended = new Promise<{ code: number; details: string }>((resolve) => {
    call.on('error', () => undefined)
    call.on('status', resolve)
  })
  return { call, words, ended }
}

describe('a call of gRPC', () => {
  it('of one message gets its reply, with metadata at both ends', async () => {
    const metadata = metadataWith(issuer.signAccessToken({ sub: 'user-7' }), {
      'x-odd': 'a',
      'x-auth-subject': 'admin',
    })
    const { error, message, header, trailers } = await unary('hello', { metadata }).result
    expect(error).toBeNull()
    expect(message).toBe('heard hello')
    expect(header?.get('x-header')).toEqual(['at the start'])
    expect(trailers?.get('x-trailer')).toEqual(['at the end'])
    expect(trailers?.get('x-bytes-bin')).toEqual([Buffer.from([0, 255])])
    const [call] = calls
    expect(call?.metadata.get('x-odd')).toEqual(['a'])
    expect(call?.metadata.get('x-auth-subject')).toEqual(['user-7'])
    expect(call?.metadata.get('authorization')).toEqual([])
    const line = { code: 'ok', status: 200, path: '/test.Echo/Unary', method: 'POST' }
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject(line), 5_000)
  })

  it('gets the status of the server with its details and metadata', async () => {
    const { error, trailers } = await unary('fail').result
    expect(error).toMatchObject({ code: status.FAILED_PRECONDITION, details: 'nót now %' })
    expect(trailers?.get('x-trailer')).toEqual(['at the end'])
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'ok', status: 200 }), 5_000)
  })

  it('to a method that is not there is told so by the server', async () => {
    const { requestSerialize, responseDeserialize } = ECHO.Unary
    const error = await new Promise<ServiceError | null>((resolve) =>
      client.makeUnaryRequest(
        '/test.Echo/Nothing',
        requestSerialize,
        responseDeserialize,
        'x',
        metadataWith(issuer.signAccessToken()),
        (failed) => resolve(failed),
      ),
    )
    expect(error?.code).toBe(status.UNIMPLEMENTED)
  })

  it('may stream to the server', async () => {
    const { path, requestSerialize, responseDeserialize } = ECHO.Collect
    const reply = await new Promise((resolve, reject) => {
      const metadata = metadataWith(issuer.signAccessToken())
      const call = client.makeClientStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        metadata,
        (error, text) => (error === null ? resolve(text) : reject(error)),
      )
      for (const word of ['one', 'two', 'three']) call.write(word)
      call.end()
    })
    expect(reply).toBe('one two three')
  })

  it('may stream from the server', async () => {
    const { words, ended } = collectStream(client, '2000', metadataWith(issuer.signAccessToken()))
    expect((await ended).code).toBe(status.OK)
    expect(words).toEqual(Array.from({ length: 2000 }, (_, i) => String(i + 1)))
  })

  it('may stream both ways at once', async () => {
    const { path, requestSerialize, responseDeserialize } = ECHO.Chat
    const metadata = metadataWith(issuer.signAccessToken({ scope: 'chat' }))
    const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
    for (const word of ['one', 'two', 'three']) {
      call.write(word)
      expect(await new Promise((resolve) => call.once('data', resolve))).toBe(word.toUpperCase())
    }
    const ended = new Promise<{ code: number }>((resolve) => call.once('status', resolve))
    call.on('data', () => undefined)
    call.end()
    expect((await ended).code).toBe(status.OK)
  })

  it('may bring a large message, and many calls may share a connection', async () => {
    const large = 'x'.repeat(3_000_000)
    expect((await unary(large).result).message).toBe(`heard ${large}`)
    const results = await Promise.all(Array.from({ length: 200 }, (_, i) => unary(`message ${i}`).result))
    expect(results.map(({ message }) => message)).toEqual(results.map((_, i) => `heard message ${i}`))
  })

  it('tells the server its deadline, and ends when that has passed', async () => {
    const startedMs = Date.now()
    const { error } = await unary('hang', { deadline: 400 }).result
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED)
    const [call] = calls
    expect(call?.deadline).toBeGreaterThan(startedMs)
    expect(call?.deadline).toBeLessThan(startedMs + 2_000)
    await vi.waitFor(() => expect(call?.cancelled).toBe(true), 5_000)
  })

  it('is cancelled at the server when the caller cancels it', async () => {
    const { call, result } = unary('hang')
    await vi.waitFor(() => expect(calls).toHaveLength(1), 5_000)
    call.cancel()
    expect((await result).error?.code).toBe(status.CANCELLED)
    await vi.waitFor(() => expect(calls[0]?.cancelled).toBe(true), 5_000)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code: 'caller_gone', status: 499 }), 5_000)
  })

  it('may go to a public path without a token', async () => {
    const { requestSerialize, responseDeserialize } = ECHO.Unary
    const error = await new Promise<ServiceError | null>((resolve) =>
      client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        requestSerialize,
        responseDeserialize,
        'x',
        (failed: ServiceError | null) => resolve(failed),
      ),
    )
    // There is no such service, and it was the server that said so.
    expect(error?.code).toBe(status.UNIMPLEMENTED)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ rule: 'health', code: 'ok' }), 5_000)
  })
})

it('a call of gRPC may be silent for longer than other bodies', async () => {
  const through = await startThrough(server.url, { limits: { body_timeout: '1s' } })
  const other = openGrpcClient(through.proxyPort)
  const { path, requestSerialize, responseDeserialize } = ECHO.Chat
  const metadata = metadataWith(issuer.signAccessToken({ scope: 'chat' }))
  const call = other.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
  call.on('error', () => undefined)
  await vi.waitFor(() => expect(calls).toHaveLength(1), 5_000)
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  call.write('still here')
  expect(await new Promise((resolve) => call.once('data', resolve))).toBe('STILL HERE')
  call.cancel()
  other.close()
  await through.stop()
})

describe('a stream of gRPC may be silent for as long as it likes once the server has begun', () => {
  it('from the server, and both ways', async () => {
    const through = await startThrough({ url: server.url, idle_timeout: '1s', response_timeout: '1s' })
    const other = openGrpcClient(through.proxyPort)
    const metadata = metadataWith(issuer.signAccessToken({ scope: 'chat' }))
    const watch = collectStream(other, 'watch', metadata)
    const { path, requestSerialize, responseDeserialize } = ECHO.Chat
    const chat = other.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
    chat.on('error', () => undefined)
    const heard: string[] = []
    chat.on('data', (word: string) => void heard.push(word))
    chat.write('one')
    await vi.waitFor(() => expect([heard, watch.words]).toEqual([['ONE'], ['the first']]), 5_000)
    expect((await watch.ended).code).toBe(status.OK)
    expect(watch.words).toEqual(['the first', 'the second'])
    chat.write('two')
    await vi.waitFor(() => expect(heard).toEqual(['ONE', 'TWO']), 5_000)
    chat.end()
    await new Promise((resolve) => chat.once('end', resolve))
    other.close()
    await through.stop()
  })
})

describe('a call of gRPC is refused', () => {
  const nowSeconds = () => Math.floor(Date.now() / 1000)
  it.each<[string, string, number, () => Metadata]>([
    ['UNAUTHENTICATED', 'credentials_missing', 401, () => metadataWith(undefined)],
    ['UNAUTHENTICATED', 'token_malformed', 401, () => metadataWith('garbage')],
    ['UNAUTHENTICATED', 'token_expired', 401, () => metadataWith(issuer.signAccessToken({ exp: nowSeconds() - 60 }))],
    ['RESOURCE_EXHAUSTED', 'header_too_large', 431, () => metadataWith('x', { 'x-big': 'x'.repeat(33_000) })],
    ['INVALID_ARGUMENT', 'credentials_malformed', 400, () => metadataWith('a b')],
  ])('as %s for %s', async (name, code, httpStatus, metadata) => {
    const { error } = await unary('hello', { metadata: metadata() }).result
    expect(error?.code).toBe(status[name as keyof typeof status])
    expect(error?.details).toContain(code)
    await vi.waitFor(() => expect(sidecar.lastRequest()).toMatchObject({ code, status: httpStatus }), 5_000)
    expect(error?.details).toContain(sidecar.lastRequest()['request_id'])
    expect(calls).toEqual([])
  })

  it('as PERMISSION_DENIED for a missing scope, while it streams', async () => {
    const { path, requestSerialize, responseDeserialize } = ECHO.Chat
    const metadata = metadataWith(issuer.signAccessToken())
    const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
    call.on('error', () => undefined)
    call.write('one')
    const ended = await new Promise<{ code: number; details: string }>((resolve) => call.once('status', resolve))
    expect(ended.code).toBe(status.PERMISSION_DENIED)
    expect(ended.details).toContain('scope_insufficient')
    expect(calls).toEqual([])
  })

  it('as UNAVAILABLE when the keys are not there', async () => {
    const broken = await startAuthorizationServer()
    broken.fail('jwks', '500')
    const through = await startSidecar({
      config: { issuers: [{ issuer: broken.issuer, audience: broken.audience }], upstream: { url: server.url } },
    })
    const other = openGrpcClient(through.proxyPort)
    const { error } = await unary('hello', { through: other, metadata: metadataWith(broken.signAccessToken()) }).result
    expect(error?.code).toBe(status.UNAVAILABLE)
    expect(error?.details).toContain('keys_unavailable')
    other.close()
    await through.stop()
    await broken.stop()
  })

  it('as UNAVAILABLE when the server is not there, and served as soon as it is', async () => {
    const gone = await startGrpcServer(handlers)
    gone.stop()
    const through = await startThrough(gone.url)
    const other = openGrpcClient(through.proxyPort)
    const { error } = await unary('hello', { through: other }).result
    expect(error?.code).toBe(status.UNAVAILABLE)
    expect(error?.details).toContain('upstream_unreachable')
    const back = await startGrpcServer(handlers, gone.port)
    expect((await unary('hello', { through: other }).result).message).toBe('heard hello')
    other.close()
    await through.stop()
    back.stop()
  })

  it('as UNAVAILABLE when the server takes too long', async () => {
    const through = await startThrough(server.url, { upstream: { url: server.url, response_timeout: '1s' } })
    const other = openGrpcClient(through.proxyPort)
    const { error } = await unary('hang', { through: other }).result
    expect(error?.code).toBe(status.UNAVAILABLE)
    expect(error?.details).toContain('upstream_timeout')
    other.close()
    await through.stop()
  })

  it('over HTTP/1.1 in the same words', async () => {
    const response = await fetch(`${sidecar.proxy}/test.Echo/Unary`, {
      method: 'POST',
      headers: { 'content-type': 'application/grpc-web+proto; charset=utf-8' },
      body: 'x',
    })
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/grpc-web+proto')
    expect(response.headers.get('grpc-status')).toBe('16')
    expect(await response.text()).toBe('')
    const other = await fetch(sidecar.proxy, { headers: { 'content-type': 'application/grpcx' } })
    expect(other.status).toBe(401)
  })
})

describe('when the server dies in the middle of a stream', () => {
  it('the call ends as UNAVAILABLE', async () => {
    const dying = await startGrpcServer(handlers)
    const through = await startThrough(dying.url)
    const other = openGrpcClient(through.proxyPort)
    const { call, ended, words } = collectStream(other, 'forever', metadataWith(issuer.signAccessToken()))
    await new Promise((resolve) => call.once('data', resolve))
    dying.stop()
    const { code, details } = await ended
    expect(words).toEqual(['the first'])
    expect(code).toBe(status.UNAVAILABLE)
    expect(details).toContain('upstream_reset')
    const line = { code: 'upstream_reset', status: 200 }
    await vi.waitFor(() => expect(through.lastRequest()).toMatchObject(line), 5_000)
    other.close()
    await through.stop()
  })
})

describe('when the sidecar stops', () => {
  it('calls in flight finish', async () => {
    const through = await startThrough(server.url)
    const other = openGrpcClient(through.proxyPort)
    await unary('hello', { through: other }).result
    const slow = Array.from({ length: 10 }, () => unary('slow', { through: other }).result)
    await vi.waitFor(() => expect(calls).toHaveLength(11), 5_000)
    const stopped = through.stop()
    expect((await Promise.all(slow)).map(({ message }) => message)).toEqual(slow.map(() => 'heard slow'))
    await stopped
    expect(through.logLines().find(({ msg }) => msg === 'stopped')).toMatchObject({ requests_cut: 0 })
    other.close()
  })
})

it('an upstream of HTTP/1.1 behind the sidecar answers a call of gRPC with what it has', async () => {
  const upstream = await startUpstream()
  const through = await startThrough(upstream.url)
  const other = openGrpcClient(through.proxyPort)
  const { error } = await unary('hello', { through: other }).result
  expect(error).not.toBeNull()
  expect(upstream.requests[0]).toMatchObject({ url: '/test.Echo/Unary', state: 'complete' })
  other.close()
  await through.stop()
  await upstream.stop()
})
