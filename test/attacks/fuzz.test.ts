import type { Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTarget, type Target } from '../fakes/attack.ts'
import { openRaw } from '../fakes/raw.ts'
import { mutate } from '../fakes/mutations.ts'
import { createRandom, type Random } from '../fakes/random.ts'
import { ok, trailersOf } from '../fakes/recorder.ts'

/**
 * Requests and responses with faults that nobody thought of. A run can be repeated with the seed that the title of its test
 * names: `SEED=1 npx vitest …`; `FUZZ=20000` makes it longer.
 */
let target: Target
const ROUNDS = Number(process.env['FUZZ'] ?? 600)
const AT_ONCE = 12

beforeAll(async () => {
  target = await startTarget({ limits: { headers_timeout: '2s', body_timeout: '2s' } })
})
afterAll(() => target.stop())

const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD', 'PATCH']
const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: api.test\r\n\r\n'
const FIELDS = [
  'X-Auth-Subject: mallory\r\n',
  'Accept: */*\r\n',
  'Cookie: a=b\r\n',
  'X-Forwarded-For: 6.6.6.6\r\n',
  'Connection: keep-alive\r\n',
  'TE: trailers\r\n',
  'Expect: 100-continue\r\n',
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n',
]

/** A request, with another one for its body or behind it. */
function makeRequest(random: Random, path: string): string {
  const fields = random.many(random.below(4), () => random.pick(FIELDS)).join('')
  const head = `${random.pick(METHODS)} ${path} HTTP/1.1\r\nHost: api.test\r\n${fields}`
  const body = random.chance(0.5) ? HIDDEN : 'hello'
  const framed = random.pick([
    `${head}\r\n`,
    `${head}Content-Length: ${body.length}\r\n\r\n${body}`,
    `${head}Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    `${head}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Auth-Subject: mallory\r\n\r\n`,
  ])
  return framed + (random.chance(0.5) ? HIDDEN : '')
}

/** Sends bytes in pieces of their own, and waits for an end or for a silence, in milliseconds. */
async function throwAt(bytes: string, cuts: readonly number[], silence = 60): Promise<string> {
  const { socket, received } = await openRaw(target.sidecar.proxyPort)
  let last = performance.now()
  socket.on('data', () => (last = performance.now()))
  let ended = false
  for (const event of ['end', 'close']) socket.on(event, () => (ended = true))
  let from = 0
  for (const to of [...cuts, bytes.length].sort((a, b) => a - b)) {
    socket.write(Buffer.from(bytes.slice(from, to), 'latin1'))
    from = to
    await new Promise((resolve) => setImmediate(resolve))
  }
  while (!ended && performance.now() - last < silence && !received().endsWith(WHOLE))
    await new Promise((resolve) => setTimeout(resolve, 5))
  socket.destroy()
  return received()
}

/** The end of a good answer: nothing more is waited for. */
const WHOLE = '\r\n\r\ngood'

/** Runs all rounds, some at a time. */
async function run(round: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < ROUNDS) await round(next++)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

/** Nothing went wrong that nobody expected, and a good request is served. */
async function expectUnharmed(): Promise<void> {
  target.backend.requests.splice(0)
  const { statuses } = await target.attack('GET /public/good HTTP/1.1\r\nHost: api.test\r\n\r\n', { answers: 1 })
  expect(statuses).toEqual([200])
  expect(target.sidecar.logText()).not.toContain('unexpected error')
  expect(await target.sidecar.metrics()).toMatch(/^bearward_unexpected_errors_total(\{[^}]*\})? 0$/m)
  await expect
    .poll(async () => /^bearward_requests_in_flight (\d+)$/m.exec(await target.sidecar.metrics())?.[1], {
      timeout: 15_000,
    })
    .toBe('0')
}

/**
 * By its name, as the most forgetful backend reads it. Faults make other names, too, which mean nothing, and other hosts: which
 * one it was, `X-Forwarded-Host` repeats.
 */
function isForged(line: string, host: string | undefined): boolean {
  const [name = '', value = ''] = line.split(': ')
  if (name === 'x-forwarded-host' && value === host) return false
  return (
    /^x-auth-|^x-forwarded-/.test(name.toLowerCase().replace(/[^a-z0-9]/g, '-')) && /mallory|6\.6\.6\.6/.test(value)
  )
}

const HEAD = /^(?:GET|POST|PUT|DELETE|OPTIONS|HEAD|PATCH|[A-Z-]+) (\/public\S*) HTTP\/1\.1\r\n/

describe('requests with random faults', () => {
  const random = createRandom()

  it(
    `crash nothing, hide no request, bring no identity (SEED=${random.seed})`,
    async () => {
      target.backend.answer = ok
      const faults: unknown[] = []
      await run(async (index) => {
        const path = `/public/r${index}`
        const bytes = mutate(random, makeRequest(random, path))
        const answers = await throwAt(
          bytes,
          random.many(random.below(3), () => random.below(bytes.length + 1)),
        )
        if (/^HTTP\/1\.1 500 /m.test(answers)) faults.push({ bytes, answers })
      })
      const { requests } = target.backend
      for (const request of requests) {
        // As strictly read as fakes/recorder.ts does: nothing but what the rules say anybody may have, and of that one head.
        const head = request.slice(0, request.indexOf('\r\n\r\n') + 2)
        if (!HEAD.test(request)) faults.push(request)
        const host = /\r\nhost: (.*)\r\n/i.exec(head)?.[1]
        if ([...head.split('\r\n'), ...trailersOf(request)].some((line) => isForged(line, host))) faults.push(request)
        if (head.match(/\r\nx-request-id: /g)?.length !== 1) faults.push(request)
      }
      expect(faults).toEqual([])
      // Otherwise the faults were so many that this shows nothing.
      expect(requests.length).toBeGreaterThan(ROUNDS / 10)
      await expectUnharmed()
    },
    ROUNDS * 200 + 20_000,
  )
})

describe('responses with random faults', () => {
  const random = createRandom()
  const bodies = ['', 'ok', 'HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison']

  function makeResponse(): string {
    const status = random.pick([200, 200, 204, 206, 301, 304, 404, 500])
    const body = random.pick(bodies)
    const fields = random.many(random.below(3), () =>
      random.pick(['X-A: b\r\n', 'Set-Cookie: a\r\n', 'Connection: close\r\n']),
    )
    const head = `HTTP/1.1 ${status} X\r\n${fields.join('')}`
    const interim = random.chance(0.2) ? 'HTTP/1.1 103 X\r\nLink: </a>; rel=preload\r\n\r\n' : ''
    return (
      interim +
      random.pick([
        `${head}Content-Length: ${body.length}\r\n\r\n${body}`,
        `${head}\r\n${body}`,
        `${head}Transfer-Encoding: chunked\r\n\r\n${body === '' ? '' : `${body.length.toString(16)}\r\n${body}\r\n`}0\r\n\r\n`,
      ])
    )
  }

  it(
    `crash nothing, and answer no other request (SEED=${random.seed})`,
    async () => {
      const leave = (socket: Socket) => (random.chance(0.5) ? socket.end() : socket.destroy())
      target.backend.answer = (socket, request) => {
        const id = /\/public\/(\w+)/.exec(request)?.[1] ?? ''
        if (!id.startsWith('bad')) {
          return void socket.write(`HTTP/1.1 200 OK\r\nX-Id: ${id}\r\nContent-Length: 4\r\n\r\ngood`)
        }
        socket.write(Buffer.from(mutate(random, makeResponse()), 'latin1'))
        if (random.chance(0.7)) setTimeout(() => leave(socket), random.below(20))
      }
      const faults: unknown[] = []
      await run(async (index) => {
        const bad = `${random.pick(['GET', 'GET', 'HEAD', 'POST'])} /public/bad${index} HTTP/1.1\r\nHost: api.test\r\n\r\n`
        const good = `GET /public/good${index} HTTP/1.1\r\nHost: api.test\r\n\r\n`
        const answers = await throwAt(random.chance(0.5) ? bad + good : bad, [])
        const own = await throwAt(good, [], 10_000)
        // Whatever became of the one before: this is the answer to this request.
        if (!own.startsWith('HTTP/1.1 200 OK\r\n') || !own.endsWith(WHOLE)) faults.push({ own })
        for (const [, id] of (answers + own).matchAll(/X-Id: (\w+)/g))
          if (id !== `good${index}`) faults.push({ id, index })
        // A complete head is one that a strict reader can read.
        const head = answers.slice(0, answers.indexOf('\r\n\r\n') + 2)
        if (!/^(?:HTTP\/1\.1 \d{3} [^\r\n]*\r\n(?:[!#$%&'*+.^`|~\w-]+: ?[^\r\n\0]*\r\n)*)?$/.test(head))
          faults.push({ head })
      })
      expect(faults).toEqual([])
      target.backend.answer = ok
      await expectUnharmed()
    },
    ROUNDS * 400 + 20_000,
  )
})
