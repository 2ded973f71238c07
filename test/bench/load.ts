/**
 * The load: a process of its own that sends GET requests over keep-alive connections, one at a time on each, and prints
 * what came of it as JSON. Its one argument is a {@link LoadOptions} as JSON.
 */
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'

export interface LoadOptions {
  readonly port: number
  /** A file with one token a line. */
  readonly tokens: string
  /** The tokens are taken in rotation, beginning with this one. */
  readonly firstToken: number
  readonly connections: number
  readonly seconds: number
  /** Requests a second; absent for as many as the answers allow. */
  readonly rate?: number
}

export interface LoadResult {
  readonly requests: number
  /** Answers other than 200. */
  readonly refused: number
  readonly seconds: number
  /** Milliseconds from sending, or from waiting for a free connection, to the whole answer; by percentile. */
  readonly p50: number
  readonly p99: number
  readonly p999: number
}

const TICK_MS = 1

/** Runs the load to its end: no new request after the time is over, all answers awaited. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { port, rate, connections } = options
  const requests = readFileSync(options.tokens, 'latin1')
    .split('\n')
    .map((token) => Buffer.from(toRequest(port, token)))
  const latencies: number[] = []
  let next = options.firstToken
  let refused = 0
  let busy = 0
  let over = false
  const done = Promise.withResolvers<void>()

  const callers = await Promise.all(
    Array.from({ length: connections }, () =>
      openCaller(port, done.reject, (caller, status) => finish(caller, status)),
    ),
  )
  const idle = [...callers]
  /** When those requests were due that found no free connection. */
  const waiting: number[] = []

  const send = (caller: Caller, sinceMs: number) => {
    busy += 1
    caller.sinceMs = sinceMs
    caller.socket.write(requests[next % requests.length] as Buffer)
    next += 1
  }
  const finish = (caller: Caller, status: number) => {
    const now = performance.now()
    busy -= 1
    latencies.push(now - caller.sinceMs)
    if (status !== 200) refused += 1
    if (over) {
      if (busy === 0) done.resolve()
      return
    }
    const due = rate === undefined ? now : waiting.shift()
    if (due === undefined) idle.push(caller)
    else send(caller, due)
  }

  const startedMs = performance.now()
  let issued = 0
  const pace = () => {
    const now = performance.now()
    for (const due = ((now - startedMs) / 1000) * (rate ?? 0); issued < due; issued += 1) {
      const caller = idle.pop()
      if (caller === undefined) waiting.push(now)
      else send(caller, now)
    }
  }
  const ticker = rate === undefined ? undefined : setInterval(pace, TICK_MS)
  if (rate === undefined) for (const caller of idle.splice(0)) send(caller, performance.now())
  setTimeout(() => {
    over = true
    clearInterval(ticker)
    if (busy === 0) done.resolve()
  }, options.seconds * 1000)
  await done.promise
  const seconds = (performance.now() - startedMs) / 1000
  for (const { socket } of callers) socket.destroy()
  return { requests: latencies.length, refused, seconds, ...percentiles(latencies) }
}

function toRequest(port: number, token: string): string {
  return (
    `GET /api/orders?page=1 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: application/json\r\n` +
    `User-Agent: bench\r\nAuthorization: Bearer ${token}\r\n\r\n`
  )
}

interface Caller {
  readonly socket: Socket
  sinceMs: number
}

function openCaller(
  port: number,
  onBroken: (error: Error) => void,
  onAnswer: (caller: Caller, status: number) => void,
): Promise<Caller> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => resolve(caller))
    const caller: Caller = { socket, sinceMs: 0 }
    let text = ''
    socket.on('error', onBroken)
    socket.on('end', () => onBroken(new Error('the connection was closed during the measurement')))
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      const head = text.indexOf('\r\n\r\n')
      if (head === -1) return
      const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text)?.[1]
      if (length === undefined) return onBroken(new Error('an answer without Content-Length'))
      if (text.length < head + 4 + Number(length)) return
      const status = Number(text.slice(9, 12))
      text = ''
      onAnswer(caller, status)
    })
  })
}

function percentiles(latencies: number[]): Pick<LoadResult, 'p50' | 'p99' | 'p999'> {
  const sorted = Float64Array.from(latencies).sort()
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const result = await runLoad(JSON.parse(process.argv[2] ?? '{}') as LoadOptions)
  process.stdout.write(`${JSON.stringify(result)}\n`)
}
