import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CODES } from '../../src/errors.ts'
import { METRICS } from '../../src/telemetry/metrics.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { rawRequest, sendRaw } from '../fakes/raw.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

let issuer: AuthorizationServer
let upstream: FakeUpstream
let sidecar: FakeSidecar

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream()
  sidecar = await startSidecar({
    config: {
      issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
      upstream: upstream.url,
      rules: [{ name: 'open', prefix: ['/open'], access: 'public' }],
    },
  })
  await sidecar.ready()
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
})

describe('the ops listener', () => {
  it.each([
    ['GET', '/livez', 200],
    ['GET', '/readyz', 200],
    ['GET', '/readyz?verbose', 200],
    ['HEAD', '/startupz', 200],
    ['GET', '/metrics', 200],
    ['GET', '/', 404],
    ['GET', '/metrics/', 404],
    ['POST', '/readyz', 405],
  ])('%s %s: %i', async (method, path, status) => {
    expect((await fetch(sidecar.ops + path, { method })).status).toBe(status)
  })
})

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

function parseExposition(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    if (line === '' || line.startsWith('#')) return []
    const match = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (match === null) throw new Error(`not a sample: ${line}`)
    const labels = [...(match[2] ?? '').matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, name, value]) => [name, value])
    return [
      { name: match[1] as string, labels: Object.fromEntries(labels) as Sample['labels'], value: Number(match[3]) },
    ]
  })
}

describe('the metrics', () => {
  it('parse, are all described, and take their labels from closed sets whatever callers send', async () => {
    const token = issuer.signAccessToken()
    for (let i = 0; i < 50; i += 1) {
      await fetch(`${sidecar.proxy}/open/${i}`)
      await fetch(`${sidecar.proxy}/random-${i}`, {
        headers: { authorization: `Bearer ${token}`, 'x-request-id': `r${i}` },
      })
      await fetch(`${sidecar.proxy}/x`, {
        headers: { authorization: `Bearer ${issuer.signAccessToken({ iss: `https://${i}.example` })}` },
      })
      await sendRaw(sidecar.proxyPort, rawRequest(`BREW${i} /a`))
    }
    const samples = parseExposition(await sidecar.metrics())
    const described = new Set(METRICS.map(({ name }) => name))
    const base = (name: string) => name.replace(/_(bucket|sum|count)$/, '')
    expect(samples.filter(({ name }) => !described.has(name) && !described.has(base(name)))).toEqual([])
    expect(samples.every(({ value }) => Number.isFinite(value))).toBe(true)
    const requests = samples.filter(({ name }) => name === 'bearward_requests_total')
    for (const { labels } of requests) {
      expect(['open', 'default', 'none']).toContain(labels['rule'])
      expect(['ok', ...Object.keys(CODES)]).toContain(labels['code'])
      expect(labels['status_class']).toMatch(/^[2345]xx$/)
    }
    const total = requests.reduce((sum, { value }) => sum + value, 0)
    const observed = samples.filter(({ name }) => name === 'bearward_request_duration_seconds_count')
    // Requests that could not be parsed have no duration.
    const unreadable = requests.find(({ labels }) => labels['code'] === 'header_invalid')?.value ?? 0
    expect(observed.reduce((sum, { value }) => sum + value, 0)).toBe(total - unreadable)
    const buckets = samples.filter(({ name }) => name === 'bearward_decision_duration_seconds_bucket')
    expect(buckets.map(({ value }) => value)).toEqual(buckets.map(({ value }) => value).toSorted((a, b) => a - b))
    expect(buckets.at(-1)?.labels).toEqual({ le: '+Inf' })
  })
})
