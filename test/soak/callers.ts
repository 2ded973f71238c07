import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { createKeepAliveCaller, type KeepAliveCaller } from '../fakes/http1-caller.ts'
import { data, frame, FRAME, headers, PREFACE, request } from '../fakes/http2-raw.ts'
import { DOWNLOAD_BYTES, type SoakBackend } from './backend.ts'
import { oneOf, upTo, type Random } from './random.ts'

/** What callers know of the world. */
export interface World {
  readonly port: number
  readonly token: string
  readonly backend: SoakBackend
  readonly random: Random
  /** A number for a request that is to be counted. */
  nextId(): number
  /** A POST was answered 502, because the backend closed the connection just before. */
  onLost(): void
  /** A promise was broken; the text says which. */
  onBroken(what: string): void
}

type Caller = (world: World) => Promise<void>

/** How long a caller waits at most before it leaves, in milliseconds. */
const PATIENCE_MS = 40

/** All kinds of callers; most leave early. */
export const CALLERS: Readonly<Record<string, Caller>> = {
  'leaves within the header': (world) => leaveWithin(world, head(world, 'GET /slow')),
  'leaves within a body': (world) => {
    const length = 100_000
    const body = 'x'.repeat(upTo(world.random, length))
    return leaveWithin(world, `${head(world, 'POST /upload', `Content-Length: ${length}`)}${body}`, 0.5)
  },
  'leaves within a body in chunks': (world) => {
    const chunks = `${'800\r\n'}${'x'.repeat(0x800)}\r\n`.repeat(upTo(world.random, 30))
    return leaveWithin(world, `${head(world, 'POST /upload', 'Transfer-Encoding: chunked')}${chunks}`, 0.5)
  },
  'leaves before the response': (world) => leaveWithin(world, head(world, 'GET /slow'), 1),
  'leaves within the response': (world) => readSome(world, 0),
  'reads slowly': (world) => readSome(world, 4),
  'asks again and again': askAgain,
  'HTTP/2: leaves within its first frames': (world) => {
    const fields = request('/slow', [['authorization', `Bearer ${world.token}`]], 'POST')
    const frames = [frame(FRAME.settings, 0, 0), headers(1, fields, false), data(1, 'x'.repeat(10_000), false)]
    return leaveWithin(world, Buffer.concat([Buffer.from(PREFACE), ...frames]).toString('latin1'))
  },
  'HTTP/2: some streams whole, some reset': useStreams,
  'WebSocket: leaves within the handshake': (world) => leaveWithin(world, head(world, 'GET /ws', ...WEBSOCKET)),
  'WebSocket: a few messages': talk,
}

const WEBSOCKET = [
  ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
]

function head({ token }: World, line: string, ...fields: string[]): string {
  return [`${line} HTTP/1.1`, 'Host: api.test', `Authorization: Bearer ${token}`, ...fields, '', ''].join('\r\n')
}

async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('error', () => undefined)
  await new Promise((done) => socket.once('connect', done).once('close', done))
  return socket
}

/** Goes away politely, or not at all politely; resolves when the connection is no more. */
async function leave(socket: Socket, random: Random): Promise<void> {
  const way = oneOf(random, ['end', 'destroy', 'reset'])
  const closed = new Promise((done) => socket.once('close', done))
  if (socket.destroyed) return
  if (way === 'reset') socket.resetAndDestroy()
  else if (way === 'destroy') socket.destroy()
  else socket.end().resume()
  await closed
}

/** @param from - the least share of the bytes that is sent */
async function leaveWithin({ port, random }: World, bytes: string, from = 0): Promise<void> {
  const socket = await open(port)
  const length = Math.ceil(bytes.length * (from + (1 - from) * random()))
  socket.write(bytes.slice(0, length), 'latin1')
  await sleep(upTo(random, PATIENCE_MS))
  await leave(socket, random)
}

async function readSome(world: World, pauseMs: number): Promise<void> {
  const { port, random, onBroken } = world
  const socket = await open(port)
  const isPatient = random() < 0.3
  const enough = isPatient ? DOWNLOAD_BYTES : upTo(random, DOWNLOAD_BYTES)
  socket.write(head(world, 'GET /download'))
  let bytes = 0
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    // Behind any other answer the connection stays open.
    if (bytes === 0 && !String(chunk).startsWith('HTTP/1.1 200 ')) {
      onBroken(`a download was answered ${String(chunk).slice(0, 100)}`)
      return leave(socket, random)
    }
    bytes += (chunk as Buffer).length
    if (bytes > enough) break
    if (pauseMs > 0) await sleep(pauseMs)
  }
  if (isPatient && bytes <= DOWNLOAD_BYTES) onBroken(`a download ended after ${bytes} bytes`)
  await leave(socket, random)
}

/** On one connection: a GET is answered whatever the backend does; a POST arrives at most once. */
async function askAgain(world: World): Promise<void> {
  const { port, token, random, onBroken } = world
  const caller = createKeepAliveCaller(`http://127.0.0.1:${port}`, token)
  for (let i = upTo(random, 8); i >= 0; i -= 1) {
    const ask = random() < 0.5 ? get : post
    await ask(world, caller).catch((error: unknown) => onBroken(`no answer: ${String(error)}`))
    await sleep(upTo(random, 6))
  }
  caller.close()
}

async function get({ nextId, onBroken }: World, caller: KeepAliveCaller): Promise<void> {
  const { status, text } = await caller.send(`/once/${nextId()}`)
  if (status !== 200 || text !== '0') onBroken(`a GET was answered ${status} ${text}`)
}

/** The connection may have been closed just as it was sent: then nobody can tell whether it arrived, and it stays unsent. */
async function post({ nextId, backend, random, onBroken, onLost }: World, caller: KeepAliveCaller): Promise<void> {
  const id = nextId()
  const body = Buffer.alloc(upTo(random, 5_000), 'x')
  const { status, text } = await caller.send(`/once/${id}`, body)
  const arrivals = backend.arrivals(id)
  if (status === 502) onLost()
  else if (status !== 200 || text !== String(body.length)) onBroken(`a POST was answered ${status} ${text}`)
  if (arrivals > 1 || (status === 200 && arrivals !== 1))
    onBroken(`a POST answered ${status} arrived ${arrivals} times`)
}

async function useStreams(world: World): Promise<void> {
  const { port, random } = world
  const session = connectHttp2(`http://127.0.0.1:${port}`)
  session.on('error', () => undefined)
  const closed = new Promise((done) => session.once('close', done))
  const isPatient = random() < 0.5
  const streams = Array.from({ length: 1 + upTo(random, 6) }, () => useStream(world, session, isPatient))
  if (isPatient) await Promise.all(streams)
  else await sleep(upTo(random, PATIENCE_MS))
  if (random() < 0.3) session.close()
  else session.destroy()
  // Streams that nobody reads would keep it open.
  setTimeout(() => session.destroy(), 1_000).unref()
  await Promise.all([closed, ...streams])
}

function useStream({ token, random, onBroken }: World, session: ClientHttp2Session, isPatient: boolean): Promise<void> {
  const isReset = random() < 0.4
  const path = oneOf(random, ['/download', '/slow', '/x'])
  const stream = session.request({ ':path': path, authorization: `Bearer ${token}` })
  let status = 0
  stream.on('response', ({ ':status': code }) => (status = code ?? 0))
  stream.on('error', () => undefined)
  stream.resume()
  if (isReset) setTimeout(() => stream.close(8), upTo(random, PATIENCE_MS))
  return new Promise((done) =>
    stream.on('close', () => {
      if (isPatient && !isReset && status !== 200) onBroken(`a stream was answered ${status}, code ${stream.rstCode}`)
      done()
    }),
  )
}

async function talk({ port, token, random, onBroken }: World): Promise<void> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { authorization: `Bearer ${token}` } })
  const closed = new Promise<void>((done) => socket.once('close', () => done()))
  const opened = await new Promise<boolean>((done) => {
    socket.once('open', () => done(true))
    socket.once('error', () => done(false))
  })
  socket.on('error', () => undefined)
  if (!opened) return onBroken('a WebSocket was not opened')
  for (let i = upTo(random, 5); i > 0; i -= 1) {
    const echo = new Promise((done) => socket.once('message', done).once('close', done))
    socket.send(Buffer.alloc(upTo(random, 20_000), 'x'))
    await echo
  }
  if (random() < 0.5) socket.close()
  else socket.terminate()
  await closed
}
