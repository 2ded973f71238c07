import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { endCommands, eventually, MAIN, type Command } from '../cli/command.ts'
import { rawRequest } from '../fakes/raw.ts'
import type { LogLine } from '../fakes/sidecar.ts'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt } from '../fakes/signer.ts'
import { readManifests } from './manifests.ts'
import {
  createPodNetwork,
  hasNftables,
  MONITORING_IP,
  NODE_IP,
  OTHER_IP,
  POD_INTERFACE,
  POD_IP,
  whyNoNamespaces,
  type PodNetwork,
} from './namespaces.ts'
import { renderedFile } from './render.ts'

const API_PORT = 3000
const PROXY_PORT = 8080
const OPS_PORT = 9090
const HELPER_PORT = 8181

const whyNot = whyNoNamespaces()
const skipped = (reason: string | undefined) => (reason === undefined ? '' : ` (skipped: ${reason})`)

// Each test starts several processes.
describe.skipIf(whyNot !== undefined)(`a pod with a network of its own${skipped(whyNot)}`, { timeout: 60_000 }, () => {
  const key = createSigningKey('ES256')
  const token = () => `Authorization: Bearer ${signJwt(key, goodClaims())}`
  let folder: string
  let network: PodNetwork
  let sidecar: Command

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bearward-pod-'))
    writeFileSync(join(folder, 'jwks.json'), JSON.stringify({ keys: [key.jwk] }))
    writeFileSync(join(folder, 'secret'), 'a-client-secret')
    // The listeners where they are unless a configuration says otherwise.
    const config = {
      issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_file: './jwks.json' }],
      upstream: `http://127.0.0.1:${API_PORT}`,
      rules: [{ name: 'health', exact: ['/healthz'], methods: ['GET'], access: 'public' }],
      helper: { clients: { web: { client_id: 'web', client_secret: { file: './secret' } } } },
      drain: { delay: '0s' },
    }
    writeFileSync(join(folder, 'bearward.yaml'), stringify(config))
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  beforeEach(async () => {
    network = createPodNetwork()
    sidecar = network.start(process.execPath, [MAIN, 'serve', '-c', join(folder, 'bearward.yaml')], {
      env: { POD_IP },
    })
    await sidecar.until(() => logLines().some(({ msg }) => msg === 'started'))
  })
  afterEach(async () => {
    await endCommands()
    network.close()
  })

  const logLines = () =>
    sidecar
      .stdout()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as LogLine)

  /** Starts the sample API, and waits until it answers through the sidecar. */
  const startApi = async (host: string) => {
    network.start(process.execPath, ['deploy/kustomize/example/app/api.mjs'], { env: { HOST: host } })
    await eventually(async () => (await get(PROXY_PORT, '/healthz')).status === 200)
  }
  const request = (line: string, ...fields: string[]) => rawRequest(line, 'Connection: close', ...fields)
  const ask = async (port: number, bytes: string, from = OTHER_IP) => {
    const [answer] = await network.ask({ port, bytes, from })
    return answer as NonNullable<typeof answer>
  }
  const get = (port: number, path: string, ...fields: string[]) => ask(port, request(`GET ${path}`, ...fields))

  /** What the API says it was told about the caller. */
  const identityIn = (text: string) =>
    (JSON.parse(text.slice(text.indexOf('\r\n\r\n{') + 4)) as { you: Record<string, string> }).you

  it('is entered through the sidecar alone', async () => {
    await startApi('127.0.0.1')
    const withToken = request('GET /orders', token())
    const answers = await network.ask(
      { port: PROXY_PORT, from: OTHER_IP, bytes: request('GET /orders') },
      { port: PROXY_PORT, from: OTHER_IP, bytes: withToken },
      { port: API_PORT, from: OTHER_IP, bytes: withToken },
      { port: API_PORT, from: NODE_IP, bytes: withToken },
    )
    expect(answers.map(({ status, error }) => status ?? error)).toEqual([401, 200, 'ECONNREFUSED', 'ECONNREFUSED'])
    expect(identityIn(answers[1]?.text ?? '')).toMatchObject({ 'x-auth-subject': 'user-1' })
  })

  it('has two sockets that others can reach, and no third', async () => {
    await startApi('127.0.0.1')
    const { text } = await network.run('ss', ['-H', '-l', '-n', '-t', '-u'])
    const local = text
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/)[4] as string)
    expect(local.filter((address) => !address.startsWith('127.')).sort()).toEqual([
      `0.0.0.0:${PROXY_PORT}`,
      `0.0.0.0:${OPS_PORT}`,
    ])
    expect(local).toContain(`127.0.0.1:${HELPER_PORT}`)
    expect(local).toContain(`127.0.0.1:${API_PORT}`)
  })

  it('tells the API nothing about a caller that the caller wrote', async () => {
    await startApi('127.0.0.1')
    const forged = [
      'x-auth-subject: admin',
      'X-Auth-Subject: admin',
      'X_AUTH_SUBJECT: admin',
      'x-auth_roles: admin',
      'X-AUTH-ANYTHING: admin',
      'Connection: close, x-auth-subject',
    ]
    const chunked = ['Transfer-Encoding: chunked', 'Trailer: x-auth-roles']
    const body = '2\r\nhi\r\n0\r\nx-auth-roles: admin\r\n\r\n'
    const answers = await network.ask(
      { port: PROXY_PORT, from: OTHER_IP, bytes: rawRequest('GET /orders', token(), ...forged) },
      { port: PROXY_PORT, from: OTHER_IP, bytes: rawRequest('POST /orders', token(), ...forged, ...chunked) + body },
      { port: PROXY_PORT, from: OTHER_IP, bytes: rawRequest('GET /orders', ...forged) },
    )
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 401])
    for (const { text } of answers) expect(text).not.toContain('admin')
    const fields = ['x-auth-client-id', 'x-auth-expires-at', 'x-auth-issuer', 'x-auth-scope', 'x-auth-subject']
    for (const { text } of answers.slice(0, 2)) {
      const identity = identityIn(text)
      expect(fields).toEqual(expect.arrayContaining(Object.keys(identity)))
      expect(identity['x-auth-subject']).toBe('user-1')
    }
  })

  it('answers the probes of a kubelet on the address of the pod, and those by command within it', async () => {
    const probe = (port: number, path: string) =>
      ask(port, request(`GET ${path}`, 'User-Agent: kube-probe/1.33'), NODE_IP)
    const statuses = async () =>
      Promise.all(['/startupz', '/livez', '/readyz'].map(async (path) => (await probe(OPS_PORT, path)).status))
    // Before there is an API; the native sidecar has to have started by then.
    expect(await statuses()).toEqual([200, 200, 200])
    const unready = await probe(PROXY_PORT, '/healthz')
    expect(unready.status).toBe(502)
    await startApi('127.0.0.1')
    expect((await probe(PROXY_PORT, '/healthz')).status).toBe(200)

    const command = (...argv: string[]) => network.run(process.execPath, [MAIN, ...argv])
    for (const word of ['startup', 'live', 'ready'])
      expect(await command('probe', word)).toEqual({ code: 0, text: 'ok\n' })

    const told = await ask(
      OPS_PORT,
      rawRequest('POST /drain', 'x-bearward-command: drain', 'Content-Length: 0'),
      NODE_IP,
    )
    expect(told.status).toBe(403)
    expect(await statuses()).toEqual([200, 200, 200])
    expect(await command('drain')).toEqual({ code: 0, text: 'draining\n' })
    expect(await statuses()).toEqual([200, 200, 503])
    expect((await command('probe', 'ready')).code).toBe(1)
    expect((await get(PROXY_PORT, '/orders', token())).status).toBe(200)
  })

  it('keeps its token endpoint to itself', async () => {
    const form = 'grant_type=refresh_token&refresh_token=stolen'
    const length = `Content-Length: ${form.length}`
    const type = 'Content-Type: application/x-www-form-urlencoded'
    const spend = (...fields: string[]) => request('POST /oauth2/token', type, length, ...fields) + form
    const answers = await network.ask(
      { port: HELPER_PORT, from: OTHER_IP, bytes: spend() },
      { port: HELPER_PORT, from: NODE_IP, bytes: spend() },
      { port: PROXY_PORT, from: OTHER_IP, bytes: spend() },
      { port: OPS_PORT, from: OTHER_IP, bytes: spend() },
    )
    expect(answers.map(({ status, error }) => status ?? error)).toEqual(['ECONNREFUSED', 'ECONNREFUSED', 401, 405])
    // From within it answers: without a provider, that it cannot be reached.
    const script = `fetch('http://127.0.0.1:${HELPER_PORT}/oauth2/token', { method: 'POST', body: new URLSearchParams('${form}') })
      .then(async (response) => console.log(response.status, await response.text()))`
    const { text } = await network.run(process.execPath, ['--input-type=module', '-e', script])
    expect(text).toMatch(/^50[23] \{"error"/)
  })

  it('is complained about when the API listens on the address of the pod, too', async () => {
    const warnings = () => logLines().filter(({ msg }) => String(msg).includes('gets around bearward'))
    await startApi('127.0.0.1')
    expect(warnings()).toEqual([])
    await endCommands()

    network.start(process.execPath, ['deploy/kustomize/example/app/api.mjs'], { env: { HOST: '0.0.0.0' } })
    await eventually(async () => (await get(API_PORT, '/healthz')).status === 200)
    sidecar = network.start(process.execPath, [MAIN, 'serve', '-c', join(folder, 'bearward.yaml')], {
      env: { POD_IP },
    })
    await sidecar.until(() => warnings().length === 1)
    expect(warnings()[0]).toMatchObject({ level: 'warn', address: POD_IP })
    expect((await get(OPS_PORT, '/metrics')).text).toMatch(/^bearward_upstream_exposed 1\r?$/m)
    // It is right to complain: whoever comes this way is whoever he says.
    const around = await get(API_PORT, '/orders', 'x-auth-subject: admin')
    expect(identityIn(around.text)).toEqual({ 'x-auth-subject': 'admin' })
  })

  const noFilter = hasNftables() ? undefined : 'there is no nft (nftables)'
  it.skipIf(noFilter !== undefined)(
    `is closed by its NetworkPolicy even then, as far as a filter can imitate it${skipped(noFilter)}`,
    async () => {
      await startApi('0.0.0.0')
      expect((await get(API_PORT, '/orders')).status).toBe(200)
      network.filter(rulesOfPolicy())
      const answers = await network.ask(
        { port: API_PORT, from: OTHER_IP, bytes: request('GET /orders') },
        { port: API_PORT, from: MONITORING_IP, bytes: request('GET /orders') },
        { port: PROXY_PORT, from: OTHER_IP, bytes: request('GET /orders', token()) },
        { port: OPS_PORT, from: OTHER_IP, bytes: request('GET /metrics') },
        { port: OPS_PORT, from: MONITORING_IP, bytes: request('GET /metrics') },
        { port: OPS_PORT, from: NODE_IP, bytes: request('GET /livez') },
        // What SECURITY.md says of the node.
        { port: API_PORT, from: NODE_IP, bytes: request('GET /orders') },
      )
      expect(answers.map(({ status, error }) => status ?? error)).toEqual([
        'no answer',
        'no answer',
        200,
        'no answer',
        200,
        200,
        200,
      ])
    },
  )

  it('leaves no namespace behind', () => {
    network.close()
    const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    expect(stdout).not.toContain(`-${process.pid}-`)
  })
})

/** What a network plugin makes of the rendered policy: its ports, by whoever may use them, and all for the node. */
function rulesOfPolicy(): string {
  const policy = readManifests(readFileSync(renderedFile('example'), 'utf8')).find(
    ({ kind }) => kind === 'NetworkPolicy',
  )
  const open = (policy?.spec?.ingress ?? []).flatMap(({ ports, from }) =>
    ports.map(({ port }) => `${from === undefined ? '' : `ip saddr ${MONITORING_IP} `}tcp dport ${port} accept`),
  )
  return `table inet of_policy {
    chain from_outside {
      type filter hook input priority 0; policy accept;
      iifname != "${POD_INTERFACE}" accept
      ct state established,related accept
      ip saddr ${NODE_IP} accept
      ${open.join('\n      ')}
      drop
    }
  }
  `
}
