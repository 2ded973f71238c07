import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { startServing } from '../deploy/serving.ts'
import { startSidecar, type FakeSidecar } from '../fakes/sidecar.ts'
import { startSurroundings, stopSurroundings, toHelperConfig, type Surroundings } from '../fakes/surroundings.ts'
import { refreshAt, requestToken, type TokenAnswer } from '../fakes/token-request.ts'

const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
const [KEY, OTHER_KEY] = [randomBytes(32).toString('base64'), randomBytes(32).toString('hex')]
const SEALED = /^eyJ[\w-]+\.\.[\w-]{16}\.[\w-]+\.[\w-]{22}$/

let issuer: Surroundings['issuer']
let upstream: Surroundings['upstream']
let sealing: FakeSidecar

const write = (name: string, text: string) => {
  const file = join(folder, name)
  writeFileSync(file, `${text}\n`)
  return file
}
const keyFile = write('first.key', KEY)
const otherKeyFile = write('other.key', OTHER_KEY)

const toConfig = (settings: Readonly<Record<string, unknown>> | undefined) =>
  toHelperConfig(issuer, upstream, {
    clients: {
      web: { client_id: 'web', client_secret: { env: 'WEB_SECRET' } },
      post: {
        client_id: 'web-post',
        client_secret: { env: 'POST_SECRET' },
        client_authentication: 'client_secret_post',
      },
    },
    ...(settings && { sealing: settings }),
  })
const toEnvironment = () => ({ WEB_SECRET: issuer.clients.web.secret, POST_SECRET: issuer.clients.webPost.secret })

async function start(settings: Readonly<Record<string, unknown>> | undefined): Promise<FakeSidecar> {
  const sidecar = await startSidecar({ config: toConfig(settings), env: toEnvironment() })
  await sidecar.ready()
  return sidecar
}

beforeAll(async () => {
  ;({ issuer, upstream } = await startSurroundings())
  sealing = await start({ key_files: [keyFile] })
})

afterAll(async () => {
  await stopSurroundings()
  rmSync(folder, { recursive: true })
})

/** A sealed refresh token, got as a backend would that changes over. */
async function getSealed(client = 'web'): Promise<string> {
  const open = await start({ key_files: [keyFile], accept_unsealed: true })
  const { status, body } = await refreshAt(open.helper, await issuer.signIn(client), client)
  expect(status).toBe(200)
  await open.stop()
  return body['refresh_token'] as string
}

async function expectRefused(answer: Promise<TokenAnswer>, code: string): Promise<void> {
  const before = issuer.requests.token
  const { status, body } = await answer
  expect([status, body['error'], body['code']]).toEqual([400, 'invalid_grant', code])
  expect(body['error_description']).toContain('was not spent')
  expect(issuer.requests.token).toBe(before)
}
const lastReason = (sidecar: FakeSidecar) => (sidecar.lastExchange()['detail'] as { reason: string }).reason

describe('a sealed refresh token', () => {
  it('is all that a caller gets, and good for a chain of refreshes', async () => {
    let token = await getSealed()
    for (let i = 0; i < 3; i += 1) {
      expect(token).toMatch(SEALED)
      const { status, body } = await refreshAt(sealing.helper, token)
      expect(status).toBe(200)
      expect(body['refresh_token']).not.toBe(token)
      token = body['refresh_token'] as string
    }
    const metrics = await sealing.metrics()
    expect(metrics).toContain('bearward_helper_sealed_total{client="web",operation="open"} 3')
    expect(metrics).toContain('bearward_helper_sealed_total{client="web",operation="seal"} 3')
  })

  it('says whom it is about, to sidecars that never saw it and across answers without an ID token', async () => {
    const token = await getSealed()
    issuer.tamper(({ id_token: _idToken, ...body }) => body)
    const without = await refreshAt(sealing.helper, token)
    expect(without.status).toBe(200)
    const other = await start({ key_files: [keyFile] })
    const claims = { aud: 'web', sub: 'user-2', scope: undefined, client_id: undefined }
    issuer.tamper((body) => ({ ...body, id_token: issuer.signAccessToken(claims, { typ: 'JWT' }) }))
    const { status, body } = await refreshAt(other.helper, without.body['refresh_token'])
    issuer.tamper(undefined)
    expect([status, body['code']]).toEqual([502, 'token_validation_failed'])
    expect(other.logLines().findLast(({ msg }) => msg === 'answer of the issuer withheld')).toMatchObject({
      detail: { check: 'id_token claim_not_accepted', claim: 'sub' },
    })
    await other.stop()
  })

  it('is refused by the issuer itself, whoever asks', async () => {
    const response = await fetch(`${issuer.issuer}/token`, {
      method: 'POST',
      headers: {
        authorization: `Basic ${Buffer.from(`web:${issuer.clients.web.secret}`).toString('base64')}`,
      },
      body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: await getSealed() }),
    })
    expect(await response.json()).toMatchObject({ error: 'invalid_grant' })
  })

  it('is refused by a sidecar with another key, and by one without', async () => {
    const token = await getSealed()
    const other = await start({ key_files: [otherKeyFile] })
    await expectRefused(refreshAt(other.helper, token), 'refresh_token_seal_invalid')
    expect(lastReason(other)).toBe('key_unknown')
    const none = await start(undefined)
    expect((await refreshAt(none.helper, token)).body).toMatchObject({ code: 'refused_by_issuer' })
    expect((await refreshAt(sealing.helper, token)).status).toBe(200)
  })

  it('is refused for another client', async () => {
    const token = await getSealed()
    await expectRefused(refreshAt(sealing.helper, token, 'web-post'), 'refresh_token_seal_invalid')
    expect(lastReason(sealing)).toBe('other_client')
    expect((await refreshAt(sealing.helper, token)).status).toBe(200)
  })

  it('is refused for another caller, when it is bound to one', async () => {
    const config = toConfig({ key_files: [keyFile], bind_to_caller: true, accept_unsealed: true })
    const callers = { shop: { shared_secret: { env: 'SHOP' } }, mail: { shared_secret: { env: 'MAIL' } } }
    Object.assign(config.helper, { callers })
    Object.assign(config.helper.clients.web, { replay_window: '10s' })
    const env = { ...toEnvironment(), SHOP: 'secret-of-the-shop', MAIL: 'secret-of-the-mail' }
    const sidecar = await startSidecar({ config, env })
    await sidecar.ready()
    const refreshAs = (secret: string, refresh_token: string) =>
      requestToken(
        sidecar.helper,
        { grant_type: 'refresh_token', client_id: 'web', refresh_token },
        { authorization: `Bearer ${secret}` },
      )
    const token = await issuer.signIn()
    const { body } = await refreshAs(env.SHOP, token)
    const sealed = body['refresh_token'] as string
    await expectRefused(refreshAs(env.MAIL, sealed), 'refresh_token_seal_invalid')
    expect(lastReason(sidecar)).toBe('other_caller')
    // The answer is given again to the caller that had it, and to nobody else.
    expect((await refreshAs(env.SHOP, token)).body['access_token']).toBe(body['access_token'])
    expect((await refreshAs(env.MAIL, token)).body).toMatchObject({ code: 'refused_by_issuer' })
  })

  it('is refused when anything in it was changed', async () => {
    const token = await getSealed()
    const [header, key, iv, text, tag] = token.split('.') as [string, string, string, string, string]
    const turn = (part: string) => (part.startsWith('A') ? 'B' : 'A') + part.slice(1)
    for (const changed of [
      [header, key, turn(iv), text, tag],
      [header, key, iv, turn(text), tag],
      [header, key, iv, text, turn(tag)],
      [header, 'AAAA', iv, text, tag],
      [header, key, iv, text, tag.slice(0, 11)],
      [header, key, iv, '', tag],
    ]) {
      await expectRefused(refreshAt(sealing.helper, changed.join('.')), 'refresh_token_seal_invalid')
      expect(lastReason(sealing)).toBe('tampered')
    }
    const headers = ['{"alg":"none"}', '{"alg":"dir","enc":"A256GCM","typ":"bearward-rt","kid":"x"}', 'x']
    for (const other of headers.map((one) => Buffer.from(one).toString('base64url'))) {
      const answer = refreshAt(sealing.helper, [other, key, iv, text, tag].join('.'))
      expect((await answer).body['code']).toMatch(/^refresh_token_(not_sealed|seal_invalid)$/)
    }
    expect((await refreshAt(sealing.helper, token)).status).toBe(200)
  })

  it('comes of an issuer that sends no other, when what was sent was not sealed, or with a key of before', async () => {
    issuer.tamper(({ refresh_token: _refreshToken, ...body }) => body)
    try {
      const changing = await start({ key_files: [otherKeyFile, keyFile], accept_unsealed: true })
      const token = await issuer.signIn()
      const first = await refreshAt(changing.helper, token)
      expect(first.status).toBe(200)
      expect(first.body['refresh_token']).toMatch(SEALED)
      // Rotation is on at the issuer, so what was spent is refused: by it, and not for its seal.
      expect((await refreshAt(changing.helper, first.body['refresh_token'])).body['code']).toBe('refused_by_issuer')
      issuer.tamper(undefined)
      const old = await getSealed()
      issuer.tamper(({ refresh_token: _refreshToken, ...body }) => body)
      const renewed = await refreshAt(changing.helper, old)
      const kid = (text: unknown) => String(text).split('.')[0]
      expect(kid(renewed.body['refresh_token'])).toBe(kid(first.body['refresh_token']))
      expect(kid(renewed.body['refresh_token'])).not.toBe(kid(old))
      issuer.tamper(undefined)
      const { body } = await refreshAt(changing.helper, await issuer.signIn())
      issuer.tamper(({ refresh_token: _refreshToken, ...rest }) => rest)
      expect((await refreshAt(changing.helper, body['refresh_token'])).body).not.toHaveProperty('refresh_token')
    } finally {
      issuer.tamper(undefined)
    }
  })

  it('comes from codes, too', async () => {
    const redirect_uri = 'https://app.bearward.test/callback'
    const config = toConfig({ key_files: [keyFile] })
    Object.assign(config.helper.clients.web, { redirect_uris: [redirect_uri] })
    const sidecar = await startSidecar({ config, env: toEnvironment() })
    await sidecar.ready()
    const code = await issuer.issueCode()
    const { status, body } = await requestToken(sidecar.helper, {
      ...{ grant_type: 'authorization_code', client_id: 'web' },
      ...{ code, redirect_uri },
    })
    expect(status).toBe(200)
    expect(body['refresh_token']).toMatch(SEALED)
    expect((await refreshAt(sidecar.helper, body['refresh_token'])).status).toBe(200)
  })

  it('cannot be had back by whoever holds what was under the seal', async () => {
    const token = await issuer.signIn()
    await expectRefused(refreshAt(sealing.helper, token), 'refresh_token_not_sealed')
  })

  it('is written down nowhere, sealed or not', async () => {
    const token = await getSealed()
    const { body } = await refreshAt(sealing.helper, token)
    await refreshAt(sealing.helper, `${token.slice(0, -4)}AAAA`)
    const output = sealing.logText() + (await sealing.metrics())
    for (const secret of [token, body['refresh_token'] as string, KEY, OTHER_KEY]) {
      expect(output).not.toContain(secret)
      expect(output).not.toContain(secret.slice(-40))
    }
  })
})

describe('keys for sealing', () => {
  /** Replaces all files of a volume at once, as a kubelet does. */
  function mount(volume: string, version: string, files: Readonly<Record<string, string>>): void {
    mkdirSync(join(volume, version), { recursive: true })
    for (const [name, text] of Object.entries(files)) writeFileSync(join(volume, version, name), text)
    symlinkSync(version, join(volume, '..next'))
    renameSync(join(volume, '..next'), join(volume, '..data'))
  }

  it('are rotated while the process runs: tokens under the old key are good, and come back under the new one', async () => {
    const volume = join(folder, 'volume')
    mount(volume, '..1', { 'a.key': KEY, 'b.key': OTHER_KEY })
    for (const name of ['a.key', 'b.key']) symlinkSync(join('..data', name), join(volume, name))
    const file = write(
      'bearward.yaml',
      stringify({
        ...toConfig({ key_files: ['volume/a.key', 'volume/b.key'], accept_unsealed: true }),
        listen: { proxy: '127.0.0.1:0', ops: '127.0.0.1:0', helper: '127.0.0.1:0' },
        drain: { delay: '0s', timeout: '1s' },
      }),
    )
    const serving = await startServing(['--config', file], toEnvironment())
    try {
      await serving.ready()
      const first = (await refreshAt(serving.helper, await issuer.signIn())).body['refresh_token'] as string
      mount(volume, '..2', { 'a.key': OTHER_KEY, 'b.key': KEY })
      await serving.said('configuration reloaded')
      const second = (await refreshAt(serving.helper, first)).body['refresh_token'] as string
      expect(second.split('.')[0]).not.toBe(first.split('.')[0])
      mount(volume, '..3', { 'a.key': OTHER_KEY, 'b.key': randomBytes(32).toString('base64') })
      await serving.said('configuration reloaded', 2)
      expect((await refreshAt(serving.helper, first)).body).toMatchObject({ code: 'refresh_token_seal_invalid' })
      expect((await refreshAt(serving.helper, second)).status).toBe(200)
      mount(volume, '..4', { 'a.key': 'too short', 'b.key': KEY })
      const { problems } = await serving.said('the configuration was not reloaded; the one before is used on')
      expect(String(problems)).toContain('helper.sealing.key_files[0]')
      expect(String(problems)).toContain('must hold 32 random bytes')
      expect(String(problems)).not.toContain('too short')
    } finally {
      serving.command.child.kill('SIGTERM')
      await serving.command.ended
    }
  })
})
