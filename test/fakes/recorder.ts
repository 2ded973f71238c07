import { createServer, type AddressInfo, type Socket } from 'node:net'

/** A backend on a bare socket that keeps the bytes of each request, and reads them more strictly than any parser would. */
export interface Recorder {
  readonly url: string
  readonly port: number
  /** What came, one text for each request, one character per byte; what cannot be read as one is kept as it came. */
  readonly requests: string[]
  /** How it answers; see {@link ok}. */
  answer: (socket: Socket, request: string) => void
  /** Connections that were opened so far. */
  connections(): number
  stop(): Promise<void>
}

/** The answer of a backend that has nothing to say. */
export const ok = (socket: Socket): void => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')

/** Starts it; it answers `ok` to each request once that is complete. */
export async function startRecorder(): Promise<Recorder> {
  const requests: string[] = []
  const sockets = new Set<Socket>()
  let opened = 0
  const server = createServer((socket) => {
    let text = ''
    opened += 1
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => {
      sockets.delete(socket)
      // Whatever is left of a request that never became whole counts as one.
      if (text !== '') requests.push(text)
      text = ''
    })
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      for (let end = requestEnd(text); end > 0; end = requestEnd(text)) {
        const request = text.slice(0, end)
        text = text.slice(end)
        requests.push(request)
        recorder.answer(socket, request)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const recorder: Recorder = {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    answer: ok,
    connections: () => opened,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
  return recorder
}

const HEAD = /^[A-Z-]+ \S+ HTTP\/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)+\r\n/
const LAST_CHUNK = /^0\r\n(?:[^\r\n]+: [^\r\n]*\r\n)*\r\n/
const CHUNK = /^([1-9a-f][0-9a-f]*)\r\n/

/** Where the first request of a text ends; 0 when it is not complete. */
function requestEnd(text: string): number {
  const head = HEAD.exec(text)?.[0]
  if (head === undefined) return 0
  const lengths = [...head.matchAll(/^content-length: (.*)\r$/gim)]
  const codings = [...head.matchAll(/^transfer-encoding: (.*)\r$/gim)]
  if (lengths.length + codings.length > 1) throw new Error(`two ways to read a request: ${JSON.stringify(head)}`)
  if (codings.length === 1) {
    const last = lastChunk(text, head.length)
    return last === -1 ? 0 : last + (LAST_CHUNK.exec(text.slice(last))?.[0].length ?? 0)
  }
  const end = head.length + Number(lengths[0]?.[1] ?? 0)
  return text.length >= end ? end : 0
}

/** The trailer fields of a request that is complete, as lines. */
export function trailersOf(request: string): string[] {
  const head = HEAD.exec(request)?.[0] ?? ''
  if (!/^transfer-encoding: /im.test(head)) return []
  return request.slice(lastChunk(request, head.length)).split('\r\n').slice(1, -2)
}

/** Where the last chunk begins; -1 when it has not come. */
function lastChunk(text: string, start: number): number {
  let at = start
  for (;;) {
    if (LAST_CHUNK.test(text.slice(at))) return at
    const size = CHUNK.exec(text.slice(at))
    if (size === null) return -1
    at += size[0].length + parseInt(size[1] as string, 16) + 2
  }
}
