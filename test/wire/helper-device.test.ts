import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createFakeClock, type FakeClock } from '../fakes/clock.ts'
import { expectUnstored } from '../fakes/handed-out.ts'
import { DEVICE_CODE } from '../fakes/provider.ts'
import { openRaw } from '../fakes/raw.ts'
import { startScriptedEndpoint, type ScriptedEndpoint } from '../fakes/scripted-endpoint.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import { startSurroundings, stopSurroundings, toHelperConfig, type Surroundings } from '../fakes/surroundings.ts'
import { postForm } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let scripted: ScriptedEndpoint
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar
let clock: FakeClock

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  scripted = await startScriptedEndpoint()
})
beforeEach(async () => {
  clock = createFakeClock()
  sidecar = await startSidecar({
    clock,
    config: toHelperConfig(issuer, upstream, {
      timeout: '2s',
      clients: {
        cli: { client_id: 'device', client_authentication: 'none', scopes: ['openid', 'offline_access'] },
        scripted: {
          client_id: 'scripted',
          client_authentication: 'none',
          token_endpoint: `${scripted.url}/token`,
          device_authorization_endpoint: `${scripted.url}/device`,
        },
        web: { client_id: 'web', client_authentication: 'none', grants: ['refresh_token'] },
      },
    }),
  })
  await sidecar.ready()
  return () => sidecar.stop()
})
afterAll(async () => {
  await stopSurroundings()
  await scripted.stop()
})

const post = async (path: string, parameters: Record<string, string>) =>
  expectUnstored(await postForm(sidecar.helper + path, parameters))

const begin = (client_id = 'device', path = '/oauth2/device_authorization') =>
  post(path, { client_id, scope: 'openid offline_access' })
const poll = (device_code: unknown, more: Record<string, string> = {}) =>
  post('/oauth2/token', { grant_type: DEVICE_CODE, client_id: 'device', device_code: String(device_code), ...more })

describe('the flow of a device', () => {
  it.each(['/oauth2/device_authorization', '/oauth/device/code'])('begins at %s', async (path) => {
    const { status, body } = await begin('device', path)
    expect(status).toBe(200)
    expect(body).toMatchObject({ interval: 5, verification_uri: `${issuer.issuer}/device` })
    for (const name of ['device_code', 'user_code', 'expires_in']) expect(body).toHaveProperty(name)
    expect(sidecar.lastExchange()).toMatchObject({ client: 'cli', grant: 'device_authorization', code: 'ok' })
  })

  it('asks the issuer once in an interval, and ends with tokens', async () => {
    const { body: device } = await begin()
    const before = issuer.requests.token
    await poll(device['device_code'])
    const early = await poll(device['device_code'])
    expect(early).toMatchObject({ status: 400, body: { error: 'slow_down', code: 'slow_down' } })
    expect(early.headers.get('retry-after')).toBe('5')
    expect(issuer.requests.token).toBe(before)

    clock.advance(5_000)
    const pending = await poll(device['device_code'])
    expect(pending).toMatchObject({
      status: 400,
      body: { error: 'authorization_pending', code: 'authorization_pending' },
    })
    expect(issuer.requests.token).toBe(before + 1)
    expect((await poll(device['device_code'])).body['error']).toBe('slow_down')

    await issuer.decideDevice(String(device['user_code']))
    clock.advance(5_000)
    const { status, body } = await poll(device['device_code'])
    expect(status).toBe(200)
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 600, id_token: expect.any(String) as string })
    expect(issuer.requests.token).toBe(before + 2)
    expect(sidecar.lastExchange()).toMatchObject({ client: 'cli', grant: 'device_code', code: 'ok' })
  })

  it('is pending at its first poll, however early, and only that one costs the caller nothing', async () => {
    const { body: device } = await begin()
    const before = issuer.requests.token
    const first = await poll(device['device_code'])
    expect(first).toMatchObject({
      status: 400,
      body: { error: 'authorization_pending', code: 'authorization_pending' },
    })
    clock.advance(3_000)
    const second = await poll(device['device_code'])
    expect(second).toMatchObject({ status: 400, body: { error: 'slow_down' } })
    expect(second.headers.get('retry-after')).toBe('2')
    expect(issuer.requests.token).toBe(before)

    // The interval began with the code and is over, and the issuer was not asked before.
    await issuer.decideDevice(String(device['user_code']))
    clock.advance(2_000)
    expect((await poll(device['device_code'])).status).toBe(200)
    expect(issuer.requests.token).toBe(before + 1)
  })

  it('has one first poll, whether or not it came early', async () => {
    const { body: device } = await begin()
    clock.advance(5_000)
    expect((await poll(device['device_code'])).body['error']).toBe('authorization_pending')
    expect((await poll(device['device_code'])).body['error']).toBe('slow_down')

    const { body: other } = await begin()
    const together = await Promise.all([poll(other['device_code']), poll(other['device_code'])])
    expect(together.map(({ body }) => body['error']).sort()).toEqual(['authorization_pending', 'slow_down'])
  })

  it('may be waited for in one request', async () => {
    const { body: device } = await begin()
    const before = issuer.requests.token
    const answers = [poll(device['device_code'], { wait: '60' }), poll(device['device_code'], { wait: '60' })]
    await untilWaiting(2)
    clock.advance(5_000)
    await expect.poll(() => issuer.requests.token).toBe(before + 1)
    await untilWaiting(2)
    await issuer.decideDevice(String(device['user_code']))
    clock.advance(5_000)
    const [one, two] = await Promise.all(answers)
    expect(one?.status).toBe(200)
    expect(two?.body).toEqual(one?.body)
    expect(issuer.requests.token).toBe(before + 2)
  })

  it('that is not decided in the time a caller waits is pending', async () => {
    const { body: device } = await begin()
    const before = issuer.requests.token
    const answer = poll(device['device_code'], { wait: '7' })
    await untilWaiting(1)
    clock.advance(5_000)
    await expect.poll(() => issuer.requests.token).toBe(before + 1)
    await untilWaiting(1)
    clock.advance(2_000)
    expect(await answer).toMatchObject({ status: 400, body: { error: 'authorization_pending' } })
    expect(issuer.requests.token).toBe(before + 1)
  })

  it('is not polled for a caller that left', async () => {
    const { body: device } = await begin()
    const before = issuer.requests.token
    const { socket } = await openRaw(Number(new URL(sidecar.helper).port))
    const form = new URLSearchParams({
      grant_type: DEVICE_CODE,
      client_id: 'device',
      device_code: String(device['device_code']),
      wait: '60',
    }).toString()
    socket.write(
      'POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
        `Content-Length: ${form.length}\r\n\r\n${form}`,
    )
    await untilWaiting(1)
    socket.destroy()
    await expect.poll(() => sidecar.lastExchange()['code']).toBe('authorization_pending')
    clock.advance(10_000)
    await issuer.decideDevice(String(device['user_code']))
    expect((await poll(device['device_code'])).status).toBe(200)
    expect(issuer.requests.token).toBe(before + 1)
  })

  it('is waited for no longer when the process ends', async () => {
    const { body: device } = await begin()
    const answer = poll(device['device_code'], { wait: '120' })
    await untilWaiting(1)
    void sidecar.stop()
    expect(await answer).toMatchObject({ status: 400, body: { error: 'authorization_pending' } })
  })

  it('that the user declined is over', async () => {
    const { body: device } = await begin()
    await issuer.decideDevice(String(device['user_code']), 'no')
    clock.advance(5_000)
    expect(await poll(device['device_code'])).toMatchObject({ status: 400, body: { error: 'access_denied' } })
  })

  it('does not begin for a client without the grant, or with a scope that is not configured', async () => {
    expect((await begin('web')).body).toMatchObject({ error: 'unauthorized_client', code: 'grant_not_allowed' })
    const foreign = await post('/oauth2/device_authorization', { client_id: 'device', scope: 'admin' })
    expect(foreign).toMatchObject({ status: 400, body: { error: 'invalid_scope' } })
    expect(issuer.requests.device).toBeGreaterThan(0)
  })

  /** Until so many requests wait for the clock. */
  async function untilWaiting(count: number): Promise<void> {
    await expect.poll(() => clock.waiting() - idle).toBe(count)
  }
  let idle = 0
  beforeEach(() => void (idle = clock.waiting()))
})

describe('whatever an issuer says, the caller hears the words of RFC 8628:', () => {
  const refused = (status: number, error: string, description = 'x', headers = {}) => ({
    status,
    body: { error, error_description: description },
    headers,
  })
  const pollScripted = () => poll('code', { client_id: 'scripted' })

  it.each([
    ['pending with 403 (Auth0)', refused(403, 'authorization_pending'), 'authorization_pending'],
    ['pending with 428 (Google)', refused(428, 'authorization_pending'), 'authorization_pending'],
    ['pending with 200', refused(200, 'authorization_pending'), 'authorization_pending'],
    ['slow_down with 429 (Auth0)', refused(429, 'slow_down'), 'slow_down'],
    ['too many requests (WorkOS)', refused(429, 'too_many_requests'), 'slow_down'],
    ['a bare 429', { status: 429, body: 'slow down' }, 'slow_down'],
    ['expired with 403 (Auth0)', refused(403, 'expired_token'), 'expired_token'],
    ['denied with 403', refused(403, 'access_denied'), 'access_denied'],
    ['declined (Entra)', refused(400, 'authorization_declined', 'AADSTS\r\nTrace "ID"'), 'access_denied'],
    ['a wrong code (Entra)', refused(400, 'bad_verification_code'), 'invalid_grant'],
    ['a spent code with 403 (Auth0)', refused(403, 'invalid_grant'), 'invalid_grant'],
  ] as const)('%s', async (_what, answer, error) => {
    scripted.answer(answer)
    const { status, body } = await pollScripted()
    expect(status).toBe(400)
    expect(body['error']).toBe(error)
    expect(body['error_description']).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/)
  })

  it('slow_down adds five seconds for good, or what Retry-After says', async () => {
    const waits: (string | null)[] = []
    const next = async () => {
      await pollScripted()
      waits.push((await pollScripted()).headers.get('retry-after'))
    }
    scripted.answer(refused(429, 'slow_down'))
    await next()
    scripted.answer(refused(403, 'authorization_pending'))
    clock.advance(10_000)
    await next()
    scripted.answer(refused(429, 'slow_down', 'x', { 'retry-after': '90' }))
    clock.advance(10_000)
    await next()
    scripted.answer(refused(403, 'authorization_pending'))
    clock.advance(90_000)
    await next()
    expect(waits).toEqual(['10', '10', '90', '15'])
  })

  it('an issuer that fails is asked less often each time', async () => {
    scripted.answer({ status: 500, body: 'broken' })
    const waits: (string | null)[] = []
    for (let i = 0; i < 5; i += 1) {
      expect(await pollScripted()).toMatchObject({ status: 502, body: { code: 'issuer_error' } })
      const seconds = (await pollScripted()).headers.get('retry-after')
      waits.push(seconds)
      clock.advance(Number(seconds) * 1000)
    }
    expect(waits).toEqual(['10', '20', '40', '60', '60'])
  })

  it('verification_url, numbers as texts and no interval are put right', async () => {
    scripted.answer({
      body: { device_code: 'd', user_code: 'u', verification_url: 'https://g.example/device', expires_in: '1800' },
    })
    expect((await begin('scripted')).body).toEqual({
      device_code: 'd',
      user_code: 'u',
      verification_uri: 'https://g.example/device',
      expires_in: 1800,
      interval: 5,
    })
  })

  it.each(['javascript:alert(1)', 'data:text/html,x', ''])('nobody is sent to %s', async (verification_uri) => {
    scripted.answer({ body: { device_code: 'd', user_code: 'u', verification_uri, expires_in: 1800 } })
    expect(await begin('scripted')).toMatchObject({ status: 502, body: { code: 'token_validation_failed' } })
  })

  it("the issuer's own interval is kept", async () => {
    scripted.answer(
      {
        body: { device_code: 'd', user_code: 'u', verification_uri: 'https://g.example/', expires_in: 60, interval: 8 },
      },
      refused(400, 'authorization_pending'),
    )
    await begin('scripted')
    expect((await poll('d', { client_id: 'scripted' })).body['error']).toBe('authorization_pending')
    const early = await poll('d', { client_id: 'scripted' })
    expect(early.headers.get('retry-after')).toBe('8')
    expect(scripted.seen.at(-1)?.path).toBe('/device')
  })
})
