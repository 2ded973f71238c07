import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { openRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream, type Handler } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar
let handler: Handler
const agent = new Agent({ keepAlive: true })

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((...parts) => handler(...parts))
})
afterEach(() => stopSidecars())
afterAll(async () => {
  agent.destroy()
  await issuer.stop()
  await upstream.stop()
})

async function start(timeout: string): Promise<void> {
  sidecar = await startSidecar({
    config: {
      issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      drain: { timeout },
    },
  })
  await sidecar.ready()
}

function call(): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${issuer.signAccessToken()}` }
    httpRequest(`${sidecar.proxy}/a`, { agent, headers }, resolve).on('error', reject).end()
  })
}

async function read(response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response) text += String(chunk)
  return text
}

describe('draining', () => {
  it('is not ready at once, goes on accepting for the delay, says Connection: close, loses nothing', async () => {
    await start('5s')
    let finish: (() => void) | undefined
    handler = (_request, response) => {
      response.write('begun ')
      finish = () => void response.end('and finished')
    }
    const inFlight = await call()
    const { socket: idle } = await openRaw(sidecar.proxyPort)
    const idleClosed = new Promise((resolve) => idle.once('close', resolve))

    const drained = sidecar.app.drain(400)
    const probe = await fetch(`${sidecar.ops}/readyz`)
    expect(probe.status).toBe(503)
    expect(await probe.text()).toContain('draining')
    expect((await fetch(`${sidecar.ops}/livez`)).status).toBe(200)
    const finishFirst = finish
    handler = (_request, response) => void response.end('late but served')
    const late = await call()
    expect(late.headers.connection).toBe('close')
    expect(await read(late)).toBe('late but served')

    await idleClosed
    await expect(call()).rejects.toThrow()
    finishFirst?.()
    expect(await read(inFlight)).toBe('begun and finished')
    await drained
    await expect(fetch(`${sidecar.ops}/livez`)).rejects.toThrow()
    expect(sidecar.logLines().at(-1)).toMatchObject({ msg: 'stopped', requests_cut: 0 })
  })

  it('cuts what takes longer than the limit, and counts it', async () => {
    await start('1s')
    handler = (_request, response) => void response.write('never ends')
    const endless = await call()
    await sidecar.app.drain(0)
    await expect(read(endless)).rejects.toThrow()
    expect(sidecar.logLines().findLast(({ msg }) => msg === 'stopped')).toMatchObject({ requests_cut: 1 })
  })

  it('twice is once', async () => {
    await start('1s')
    await Promise.all([sidecar.app.drain(0), sidecar.app.drain(60_000)])
    expect(sidecar.logLines().filter(({ msg }) => msg === 'draining')).toHaveLength(1)
  })
})
