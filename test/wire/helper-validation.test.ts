import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startSidecar, type FakeSidecar, type LogLine } from '../fakes/sidecar.ts'
import { startSurroundings, stopSurroundings, toHelperConfig, type Surroundings } from '../fakes/surroundings.ts'
import { refreshAt } from '../fakes/token-request.ts'

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let sidecar: FakeSidecar

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  process.env['WEB_SECRET'] = issuer.clients.web.secret
  sidecar = await start({ validation_wait: '5s' })
  await sidecar.ready()
})

const start = (helper: Record<string, unknown>) =>
  startSidecar({
    config: toHelperConfig(issuer, upstream, {
      ...helper,
      clients: { web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } } },
    }),
  })

afterEach(() => {
  issuer.fail('jwks', undefined)
  issuer.tamper(undefined)
})

afterAll(stopSurroundings)

const refresh = (token: string, more?: Record<string, string>, to = sidecar) => refreshAt(to.helper, token, 'web', more)

const idTokenFor = (sub: string) =>
  issuer.signAccessToken({ aud: 'web', sub, scope: undefined, client_id: undefined }, { typ: 'JWT' })
const revocations = () =>
  sidecar.logLines().filter(({ msg }) => msg === 'refresh token of the withheld answer revoked').length
const logged = (message: string): LogLine | undefined => sidecar.logLines().findLast(({ msg }) => msg === message)

describe('an answer that does not pass validation', () => {
  it('is withheld, and its refresh token is revoked at the issuer', async () => {
    let kept = ''
    issuer.tamper((body) => {
      kept = body['refresh_token'] as string
      return { ...body, id_token: idTokenFor('') }
    })
    const { status, body } = await refresh(await issuer.signIn())
    issuer.tamper(undefined)
    expect(status).toBe(502)
    expect(body).toMatchObject({ error: 'server_error', code: 'token_validation_failed' })
    expect(logged('answer of the issuer withheld')).toMatchObject({
      level: 'error',
      client: 'web',
      grant: 'refresh_token',
      result: 'refused',
      detail: { check: 'id_token claim_invalid', claim: 'sub' },
    })
    await expect.poll(() => logged('refresh token of the withheld answer revoked')).toMatchObject({ client: 'web' })
    expect((await refresh(kept)).body).toMatchObject({ error: 'invalid_grant' })
  })

  it('has no access token at all: its refresh token is revoked all the same', async () => {
    const before = revocations()
    let kept = ''
    issuer.tamper(({ access_token: _accessToken, ...body }) => {
      kept = body['refresh_token'] as string
      return body
    })
    const { status, body } = await refresh(await issuer.signIn())
    issuer.tamper(undefined)
    expect([status, body['code']]).toEqual([502, 'token_validation_failed'])
    await expect.poll(revocations).toBe(before + 1)
    expect((await refresh(kept)).body).toMatchObject({ error: 'invalid_grant' })
  })

  it('is about another user than the one before', async () => {
    const first = await refresh(await issuer.signIn())
    expect(first.status).toBe(200)
    const second = await refresh(first.body['refresh_token'] as string)
    expect(second.status).toBe(200)
    expect(logged('answer validated')).toMatchObject({ id_token: 'valid', access_token: 'valid', subject: 'same' })
    issuer.tamper((body) => ({ ...body, id_token: idTokenFor('user-2') }))
    const third = await refresh(second.body['refresh_token'] as string)
    expect(third.body).toMatchObject({ code: 'token_validation_failed' })
    expect(logged('answer of the issuer withheld')).toMatchObject({
      detail: { check: 'id_token claim_not_accepted', claim: 'sub' },
    })
  })

  it('is about another user than the caller says', async () => {
    const hint = idTokenFor('user-2')
    expect((await refresh(await issuer.signIn(), { id_token_hint: idTokenFor('user-1') })).status).toBe(200)
    expect((await refresh(await issuer.signIn(), { id_token_hint: hint })).body).toMatchObject({
      code: 'token_validation_failed',
    })
    const before = issuer.requests.token
    const { status, body } = await refresh('x', { id_token_hint: 'x' })
    expect([status, body['error']]).toEqual([400, 'invalid_request'])
    expect(issuer.requests.token).toBe(before)
  })

  it('does not fail for the callers that know nothing when one of them knows better', async () => {
    const token = await issuer.signIn()
    issuer.delayTokens(300)
    const before = issuer.requests.token
    const [first, second] = await Promise.all([refresh(token), refresh(token, { id_token_hint: idTokenFor('other') })])
    issuer.delayTokens(0)
    expect(issuer.requests.token).toBe(before + 1)
    expect([first.status, second.status]).toEqual([200, 502])
  })
})

describe('an answer signed with a key that cannot be fetched', () => {
  it('is held until it can be, and goes to whoever asks for it then', { timeout: 40_000 }, async () => {
    const patient = await start({})
    await patient.ready()
    const token = await issuer.signIn()
    issuer.rotateKeys()
    issuer.fail('jwks', '500')
    const before = issuer.requests.token
    const body = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'web', refresh_token: token })
    const impatient = fetch(`${patient.helper}/oauth2/token`, {
      method: 'POST',
      body,
      signal: AbortSignal.timeout(500),
    })
    await expect(impatient).rejects.toThrow()
    const joined = refresh(token, {}, patient)
    issuer.fail('jwks', undefined)
    expect((await joined).status).toBe(200)
    expect(issuer.requests.token).toBe(before + 1)
    expect(await patient.metrics()).toContain('bearward_helper_validations_total{client="web",result="valid"} 1')
    await patient.stop()
  })

  it('is withheld when that takes too long, under a code that says so', async () => {
    const hasty = await start({ validation_wait: '1s' })
    await hasty.ready()
    const token = await issuer.signIn()
    issuer.rotateKeys()
    issuer.fail('jwks', '500')
    const { status, body } = await refresh(token, {}, hasty)
    expect([status, body['error'], body['code']]).toEqual([502, 'temporarily_unavailable', 'tokens_not_validated'])
    expect(body['error_description']).toMatch(/the grant is spent/)
    expect(JSON.stringify(body)).not.toMatch(/access_token|eyJ/)
    expect(hasty.logLines().findLast(({ msg }) => msg === 'answer of the issuer withheld')).toMatchObject({
      result: 'keys_unavailable',
      detail: { issuer: 'main' },
    })
    await hasty.stop()
  })
})
