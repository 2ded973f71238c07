import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { endCommands } from '../cli/command.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { BACKENDS, MissingError, type Backend } from '../fakes/backends.ts'
import { sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { TARGETS } from './targets.ts'

/**
 * Path confusion: what the rules decide on and what a backend serves must be the same path, whatever parser the backend has.
 * Real ones answer here with the route that served a request, and the bytes of the target as they came.
 */
let issuer: AuthorizationServer
let member: string
let admin: string

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  member = `Authorization: Bearer ${issuer.signAccessToken()}\r\n`
  admin = `Authorization: Bearer ${issuer.signAccessToken({ scope: 'admin' })}\r\n`
})
afterAll(() => issuer.stop())

describe.each(Object.keys(BACKENDS))('a backend of %s', (name) => {
  let backend: Backend | undefined
  let missing = ''
  let sidecar: FakeSidecar

  beforeAll(async () => {
    try {
      backend = await BACKENDS[name]!()
    } catch (error) {
      if (!(error instanceof MissingError)) throw error
      missing = error.message
      console.log(`skipped: ${missing}`)
      return
    }
    sidecar = await startSidecar({
      config: {
        issuers: [{ issuer: issuer.issuer, audience: issuer.audience }],
        upstream: `http://127.0.0.1:${backend.port}`,
        rules: [
          { name: 'public', prefix: ['/public'], exact: ['/healthz'], access: 'public' },
          { name: 'admin', prefix: ['/admin'], scopes: { all: ['admin'] } },
        ],
      },
    })
    await sidecar.ready()
  }, 180_000)
  afterAll(async () => {
    await stopSidecars()
    await backend?.stop()
    await endCommands()
  })

  interface Served {
    readonly target: string
    readonly status: number
    /** The route that served it; `undefined` when the backend did not, be it that it was not asked or knows no such path. */
    readonly route: string | undefined
    /** The target as the backend got it. */
    readonly got: string | undefined
    readonly subject: string | undefined
  }

  async function send(target: string, fields = '', method = 'GET'): Promise<Served> {
    const bytes = `${method} ${target} HTTP/1.1\r\nHost: api.test\r\n${fields}\r\n`
    const { status, text } = await sendRaw(sidecar.proxyPort, bytes, (all) => all.includes('\r\n\r\n'))
    const field = (wanted: string) => new RegExp(`^${wanted}: ?(.*)\r$`, 'im').exec(text)?.[1]
    return { target, status, route: field('x-route'), got: field('x-target'), subject: field('x-subject') }
  }

  /** Sends all, a few at a time. */
  async function sendAll(fields: string, method = 'GET'): Promise<Served[]> {
    const served: Served[] = []
    for (let i = 0; i < TARGETS.length; i += 16) {
      served.push(...(await Promise.all(TARGETS.slice(i, i + 16).map((target) => send(target, fields, method)))))
    }
    return served
  }

  it('serves what is public to anybody, and /admin to those who may', async ({ skip }) => {
    skip(missing !== '', missing)
    expect(await send('/public')).toMatchObject({ route: 'public', status: 200 })
    expect(await send('/public/x%20y?z')).toMatchObject({ route: 'public', got: '/public/x%20y?z' })
    expect(await send('/healthz')).toMatchObject({ route: 'healthz' })
    expect(await send('/admin')).toMatchObject({ status: 401, route: undefined })
    expect(await send('/admin', member)).toMatchObject({ status: 403, route: undefined })
    expect(await send('/admin/x', admin)).toMatchObject({ status: 200, route: 'admin' })
    expect(await send('/else', member)).toMatchObject({ status: 200, route: 'other' })
  })

  it.each(['GET', 'POST'])('serves %s without a token on public paths alone', async (method) => {
    const served = await sendAll('Content-Length: 0\r\n', method)
    const asked = served.filter(({ route }) => route !== undefined)
    expect(asked.filter(({ route }) => route !== 'public' && route !== 'healthz')).toEqual([])
    expect(asked.length).toBeGreaterThan(20)
    expect(served.filter(({ status }) => status === 0 || status >= 500).filter(({ status }) => status !== 501)).toEqual(
      [],
    )
  })

  it('serves /admin to nobody without the scope', async () => {
    const served = await sendAll(member)
    expect(served.filter(({ route }) => route?.includes('admin') === true)).toEqual([])
    expect(served.filter(({ route }) => route === 'other').length).toBeGreaterThan(5)
  })

  it('gets every target as it was sent', async () => {
    const served = (await sendAll(admin)).filter(({ got }) => got !== undefined)
    expect(served.filter(({ target, got }) => target !== got)).toEqual([])
    expect(served.length).toBeGreaterThan(50)
  })

  it.each([
    'X-Auth-Subject',
    'x_auth_subject',
    'X_Auth-Subject',
    'X.Auth.Subject',
    'X-Auth.Subject',
    'x-auth_subject',
    'X~Auth~Subject',
    'X!Auth!Subject',
    'X*Auth*Subject',
    "X'Auth'Subject",
    'X+Auth+Subject',
    'X|Auth|Subject',
    'X^Auth^Subject',
    'X`Auth`Subject',
    'X%Auth%Subject',
    'X&Auth&Subject',
    'X#Auth#Subject',
    'X$Auth$Subject',
    'HTTP_X_AUTH_SUBJECT',
    'HTTP-X-Auth-Subject',
  ])('does not take %s for the subject', async (field) => {
    const [open, closed] = [
      await send('/public', `${field}: mallory\r\n`),
      await send('/x', `${member}${field}: mallory\r\n`),
    ]
    expect(open).toMatchObject({ route: 'public' })
    expect(open.subject ?? '').toBe('')
    expect(closed).toMatchObject({ route: 'other', subject: 'user-1' })
  })
})
