import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { METRICS } from '../../src/telemetry/metrics.ts'
import { endCommands, eventually, startCommand } from '../cli/command.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { freePort } from '../fakes/free-port.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { startUpstream, type FakeUpstream } from '../fakes/upstream.ts'
import { ALERT_CASES, toPromtoolTests } from './alerts.ts'

const DEPLOY = resolve(import.meta.dirname, '../../deploy')
const MONITORING = join(DEPLOY, 'kustomize/monitoring')

interface Rule {
  readonly record?: string
  readonly alert?: string
  readonly expr: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}
const { spec } = parse(readFileSync(join(MONITORING, 'prometheus-rule.yaml'), 'utf8')) as {
  spec: { groups: readonly { readonly rules: readonly Rule[] }[] }
}
const rules = spec.groups.flatMap(({ rules }) => rules)
const alerts = rules.filter(({ alert }) => alert !== undefined)

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly datasource?: { readonly uid: string }
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[]
}
const dashboard = JSON.parse(readFileSync(join(MONITORING, 'bearward.json'), 'utf8')) as {
  readonly id: null
  readonly uid: string
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly type: string }[] }
}
const panels = dashboard.panels.filter(({ type }) => type !== 'row')
const runbook = readFileSync(join(DEPLOY, 'runbook.md'), 'utf8')

/** What a metric is called in the code, whatever a histogram appends to its name. */
const described = new Map(METRICS.map((metric) => [metric.name, metric]))
const nameOf = (series: string) => (described.has(series) ? series : series.replace(/_(bucket|sum|count)$/, ''))
/** Labels that Prometheus adds to every series. */
const TARGET_LABELS = ['namespace', 'job', 'pod', 'container', 'instance', 'le']

function seriesIn(text: string): string[] {
  return [...text.matchAll(/(?<![:\w])(bearward_\w+|process_\w+|nodejs_\w+)/g)].map(([series]) => series)
}

describe('metrics in alerts, dashboard and runbook', () => {
  const texts: [string, string][] = [
    ...rules.map(({ alert, record, expr }): [string, string] => [(alert ?? record) as string, expr]),
    ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }): [string, string] => [title, expr])),
    ['the runbook', runbook],
    ['the guide', readFileSync(join(DEPLOY, 'README.md'), 'utf8')],
  ]

  it('exist in the code', () => {
    const absent = texts.flatMap(([where, text]) =>
      seriesIn(text)
        .filter((series) => !described.has(nameOf(series)))
        .map((series) => `${where}: ${series}`),
    )
    expect(absent).toEqual([])
  })

  it('are selected and grouped by labels that they have', () => {
    const wrong = texts.flatMap(([where, text]) =>
      [...text.matchAll(/(bearward_\w+|process_\w+|nodejs_\w+)\{([^}]*)\}/g)].flatMap(
        ([, series = '', selector = '']) => {
          const labels = [...selector.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label]) => label as string)
          const known = [...(described.get(nameOf(series))?.labels ?? []), ...TARGET_LABELS]
          return labels.filter((label) => !known.includes(label)).map((label) => `${where}: ${series} ${label}`)
        },
      ),
    )
    expect(wrong).toEqual([])
  })

  it('are compared with codes that the code has', () => {
    const errors = readFileSync(resolve(DEPLOY, '../src/errors.ts'), 'utf8')
    const codes = texts.flatMap(([, text]) =>
      [...text.matchAll(/code[=!]~?"([^"]+)"/g)].flatMap(([, values = '']) => values.split('|')),
    )
    expect(codes.length).toBeGreaterThan(10)
    const known = (code: string) => code === 'ok' || new RegExp(`\\b${code}\\b`).test(errors)
    expect(codes.filter((code) => !known(code))).toEqual([])
  })

  it('are recorded before they are used under a name with colons', () => {
    const recorded = new Set(rules.flatMap(({ record }) => record ?? []))
    const used = texts.flatMap(([, text]) => [...text.matchAll(/bearward:[\w:]+/g)].map(([name]) => name))
    expect(used.filter((name) => !recorded.has(name))).toEqual([])
  })
})

describe('the alerts', () => {
  it('each have a section in the runbook that says what it means and what to do, and the other way round', () => {
    const sections = [...runbook.matchAll(/^## (Bearward\w+)\n([\s\S]*?)(?=^## |(?![\s\S]))/gm)]
    expect(sections.map(([, name]) => name).sort()).toEqual(alerts.map(({ alert }) => alert).sort())
    for (const [, , text = ''] of sections) {
      for (const part of ['**Means**', '**Look**', '**Do**']) expect(text).toContain(part)
    }
  })

  it.each(alerts)('$alert says how bad it is, what happens, and where to read on', ({ alert, labels, annotations }) => {
    expect(['warning', 'critical']).toContain(labels?.['severity'])
    expect(annotations?.['summary']).toMatch(/\S/)
    expect(annotations?.['description']).toMatch(/\.$/)
    expect(annotations?.['runbook_url']).toBe(`deploy/runbook.md#${alert?.toLowerCase()}`)
  })

  it('each have a case in which they fire and one in which they do not', () => {
    expect(ALERT_CASES.map(({ alert }) => alert).sort()).toEqual(alerts.map(({ alert }) => alert).sort())
  })
})

describe('the dashboard', () => {
  it('can be provisioned: no id, unique panels, the data source a variable', () => {
    expect(dashboard).toMatchObject({ id: null, uid: 'bearward' })
    const ids = dashboard.panels.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    const sources = panels.flatMap(({ datasource, targets = [] }) => [
      datasource,
      ...targets.map((one) => one.datasource),
    ])
    expect(new Set(sources.map((source) => source?.uid))).toEqual(new Set(['${datasource}']))
    expect(dashboard.templating.list[0]).toMatchObject({ name: 'datasource', type: 'datasource' })
  })

  it('answers in the order in which people ask', () => {
    const rows = dashboard.panels.filter(({ type }) => type === 'row').map(({ title }) => title)
    expect(rows.slice(0, 5)).toEqual([
      'Is it well?',
      'Who is refused, and why?',
      'What does it cost?',
      'Are the keys fresh?',
      'Is the helper well?',
    ])
  })
})

describe('the copies in the chart', () => {
  it.each(readdirSync(join(DEPLOY, 'helm/bearward/files')))('%s is that of deploy/kustomize/monitoring', (file) => {
    const copy = readFileSync(join(DEPLOY, 'helm/bearward/files', file), 'utf8')
    expect(copy).toBe(readFileSync(join(MONITORING, file), 'utf8'))
  })
})

const available =
  spawnSync('prometheus', ['--version']).status === 0 && spawnSync('promtool', ['--version']).status === 0
const reason = available ? '' : ' (skipped: there is no prometheus or promtool)'

describe.skipIf(!available)(`a real Prometheus${reason}`, () => {
  let folder: string
  let issuer: AuthorizationServer
  let upstream: FakeUpstream
  let sidecar: FakeSidecar
  let port: number

  const promtool = (...argv: string[]) => {
    const { status, stdout, stderr } = spawnSync('promtool', argv, { encoding: 'utf8' })
    return { status, text: stdout + stderr }
  }
  const query = async <T>(path: string) =>
    ((await (await fetch(`http://127.0.0.1:${port}/api/v1/${path}`)).json()) as { data: T }).data

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bearward-prometheus-'))
    writeFileSync(join(folder, 'rules.yaml'), stringify(spec))
    issuer = await startAuthorizationServer()
    upstream = await startUpstream()
    const client = { client_id: issuer.clients.web.id, client_secret: { env: 'TEST_SECRET' } }
    sidecar = await startSidecar({
      config: {
        issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
        upstream: upstream.url,
        helper: { clients: { web: client } },
      },
      env: { TEST_SECRET: issuer.clients.web.secret },
    })
    await sidecar.ready()
    port = await freePort()
    const target = { targets: [new URL(sidecar.ops).host], labels: { namespace: 'shop', pod: 'a' } }
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: ['rules.yaml'],
      scrape_configs: [{ job_name: 'shop/bearward', static_configs: [target] }],
    }
    writeFileSync(join(folder, 'prometheus.yaml'), stringify(config))
    startCommand('prometheus', [
      `--config.file=${join(folder, 'prometheus.yaml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ])
    await eventually(() =>
      fetch(`http://127.0.0.1:${port}/-/ready`).then(
        ({ status }) => status === 200,
        () => false,
      ),
    )
  })
  afterAll(async () => {
    await endCommands()
    await stopSidecars()
    await issuer.stop()
    await upstream.stop()
    rmSync(folder, { recursive: true })
  })

  it('accepts the rules', () => {
    const { status, text } = promtool('check', 'rules', join(folder, 'rules.yaml'))
    expect({ status, text }).toMatchObject({ status: 0 })
  })

  it('raises each alert in its case, and not in the other', () => {
    writeFileSync(join(folder, 'tests.yaml'), stringify(toPromtoolTests('rules.yaml')))
    const { status, text } = promtool('test', 'rules', join(folder, 'tests.yaml'))
    expect({ status, text }).toMatchObject({ status: 0 })
  })

  it('finds nothing to complain about in the metrics', async () => {
    // What Node and the process are measured by has names that others chose.
    const own = (await sidecar.metrics()).split('\n').filter((line) => line.includes('bearward_'))
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
      input: `${own.join('\n')}\n`,
      encoding: 'utf8',
    })
    expect({ status, text: stdout + stderr }).toEqual({ status: 0, text: '' })
  })

  it('scrapes the sidecar, and answers every question of the dashboard', async () => {
    await fetch(sidecar.proxy, { headers: { authorization: `Bearer ${issuer.signAccessToken()}` } })
    await fetch(sidecar.proxy)
    interface Targets {
      readonly activeTargets: readonly { readonly health: string; readonly lastError: string }[]
    }
    await eventually(async () => (await query<Targets>('targets')).activeTargets[0]?.health === 'up')

    const expressions = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const))
    const values: Readonly<Record<string, string>> = { namespace: 'shop', job: '.*', pod: '.*', __rate_interval: '30s' }
    const broken: string[] = []
    for (const [title, expr] of expressions) {
      const written = expr.replace(
        /\$(__rate_interval|\w+)/g,
        (_all, name: string) => values[name] ?? `unknown ${name}`,
      )
      const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(written)}`
      const answer = (await (await fetch(url)).json()) as { status: string; error?: string }
      if (answer.status !== 'success') broken.push(`${title}: ${answer.error}`)
    }
    expect(broken).toEqual([])
  })

  it('evaluates all rules without a fault, and raises no alert about a sidecar that is well', async () => {
    interface Groups {
      readonly groups: readonly {
        readonly rules: readonly { readonly name: string; readonly health: string; readonly lastError?: string }[]
      }[]
    }
    const all = async () => (await query<Groups>('rules')).groups.flatMap((group) => group.rules)
    await eventually(async () => (await all()).every(({ health }) => health !== 'unknown'))
    expect((await all()).filter(({ health }) => health !== 'ok')).toEqual([])
    // A scrape that took too long on a busy machine passes.
    await eventually(async () => (await query<{ alerts: unknown[] }>('alerts')).alerts.length === 0)
  })
})
