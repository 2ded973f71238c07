import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import type { Config } from '../../src/config/schema.ts'
import { renderChartSchema } from '../dev/generate.ts'
import { startSidecar, stopSidecars } from '../fakes/sidecar.ts'
import {
  allContainers,
  podsOf,
  readManifests,
  type Container,
  type Manifest,
  type PodSpec,
  type SecurityContext,
} from './manifests.ts'
import { restrictedViolations } from './pod-security.ts'
import { abridge, header, RENDERINGS, renderedFile, whyNot } from './render.ts'

const ROOT = resolve(import.meta.dirname, '../..')

interface Rendered {
  readonly name: string
  readonly manifests: readonly Manifest[]
  readonly pod: PodSpec | undefined
}

const rendered: Rendered[] = RENDERINGS.map(({ name }) => {
  const manifests = readManifests(readFileSync(renderedFile(name), 'utf8'))
  return { name, manifests, pod: podsOf(manifests)[0] }
})
const withPod = rendered.flatMap(({ pod, ...rest }) => (pod === undefined ? [] : [{ ...rest, pod }]))

const sidecarOf = (pod: PodSpec) => allContainers(pod).find(({ name }) => name === 'bearward') as Container
const appOf = ({ containers }: PodSpec) => containers.find(({ name }) => name !== 'bearward') as Container
const isNative = (pod: PodSpec) => sidecarOf(pod).restartPolicy === 'Always'

/** The configuration in a rendering, as the program reads it. */
function configOf(manifests: readonly Manifest[]): Config | undefined {
  const text = manifests.find(({ kind, data }) => kind === 'ConfigMap' && data?.['bearward.yaml'] !== undefined)?.data
  if (text === undefined) return undefined
  const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  try {
    writeFileSync(join(folder, 'bearward.yaml'), text['bearward.yaml'] as string)
    return loadConfig({ file: join(folder, 'bearward.yaml'), env: {} })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

afterAll(stopSidecars)

describe.each(RENDERINGS)('the rendering $name', ({ name, tool, sources, render }) => {
  it('is of the sources as they are now; else run: node test/deploy/render.ts', () => {
    expect(readFileSync(renderedFile(name), 'utf8').split('\n', 1)[0]).toBe(header(sources).trimEnd())
  })

  const reason = whyNot(tool)
  it.skipIf(reason !== undefined)(`is what ${tool} makes of them${reason ? ` (skipped: ${reason})` : ''}`, () => {
    const sorted = (text: string) =>
      readManifests(text).sort((a, b) => (a.kind + a.metadata.name).localeCompare(b.kind + b.metadata.name))
    expect(sorted(abridge(render()))).toEqual(sorted(readFileSync(renderedFile(name), 'utf8')))
  })
})

describe.each(withPod)('the pod of $name', ({ manifests, pod }) => {
  const sidecar = sidecarOf(pod)

  it('is admitted under the Pod Security profile "restricted"', () => {
    expect(restrictedViolations(pod)).toEqual([])
  })

  it('gives the sidecar a numeric user, a read-only root and a memory limit', () => {
    expect(sidecar.securityContext).toMatchObject({ runAsUser: 65532, readOnlyRootFilesystem: true })
    expect(sidecar.resources?.limits).toEqual({ memory: '192Mi' })
  })

  it('is reached by its Services through the proxy port alone', () => {
    const targets = manifests.filter(({ kind }) => kind === 'Service').flatMap(({ spec }) => spec?.ports ?? [])
    expect(targets.length).toBeGreaterThan(0)
    expect(new Set(targets.map(({ targetPort }) => targetPort))).toEqual(new Set([8080]))
    expect(sidecar.ports?.map(({ containerPort }) => containerPort)).toEqual([8080, 9090])
  })

  it('is selected by a NetworkPolicy that opens the two ports of the sidecar at most', () => {
    const [policy, ...others] = manifests.filter(({ kind }) => kind === 'NetworkPolicy')
    const labels = manifests.find(({ spec }) => spec?.template !== undefined)?.spec?.template?.metadata?.labels
    expect(others).toEqual([])
    expect(labels).toMatchObject(policy?.spec?.podSelector?.matchLabels as object)
    const open = policy?.spec?.ingress?.flatMap(({ ports }) => ports.map(({ port }) => port)) ?? []
    expect(open[0]).toBe(8080)
    expect([[], [9090]]).toContainEqual(open.slice(1))
  })

  it('has a volume for every mount, and none of them by subPath', () => {
    const names = pod.volumes?.map(({ name }) => name) ?? []
    const mounts = allContainers(pod).flatMap(({ volumeMounts = [] }) => volumeMounts)
    expect(mounts.filter(({ name }) => !names.includes(name))).toEqual([])
    expect(mounts.filter(({ subPath }) => subPath !== undefined)).toEqual([])
  })

  it('mounts the secrets and the configuration of the sidecar into the sidecar alone', () => {
    const mounts = appOf(pod).volumeMounts ?? []
    expect(mounts.filter(({ name }) => name.startsWith('bearward'))).toEqual([])
    expect(sidecar.volumeMounts?.find(({ name }) => name === 'bearward-config')?.mountPath).toBe('/etc/bearward')
  })

  it('is configured by a file that loads, and whose files are in a mount', () => {
    const config = configOf(manifests)
    if (config === undefined) {
      expect(pod.volumes?.find(({ name }) => name === 'bearward-config')?.configMap?.name).toBe('orders-bearward')
      return
    }
    const files = Object.values(config.helper.clients).flatMap(({ client_secret: secret }) =>
      secret !== undefined && 'file' in secret ? [secret.file] : [],
    )
    const paths = sidecar.volumeMounts?.map(({ mountPath }) => `${mountPath}/`) ?? []
    expect(files.filter((file) => !paths.some((path) => file.startsWith(path)))).toEqual([])
    expect(config.listen.proxy).toEqual({ host: '0.0.0.0', port: 8080 })
    expect(config.listen.ops.port).toBe(9090)
    expect(new URL(config.upstream.url).hostname).toBe('127.0.0.1')
  })
})

describe('the end of a pod', () => {
  const times = (manifests: readonly Manifest[], pod: PodSpec) => {
    const { sleep, exec } = appOf(pod).lifecycle?.preStop ?? {}
    const { delay, timeout } = configOf(manifests)?.drain ?? { delay: 5_000, timeout: 20_000 }
    return {
      sleep: sleep?.seconds ?? Number(exec?.command.at(-1)),
      delay: delay / 1000,
      timeout: timeout / 1000,
      grace: pod.terminationGracePeriodSeconds ?? 30,
    }
  }

  it.each(withPod.filter(({ pod }) => isNative(pod)))(
    '$name: the app serves on while load balancers learn, and has time to finish',
    ({ manifests, pod }) => {
      const { sleep, delay, timeout, grace } = times(manifests, pod)
      expect(sidecarOf(pod).lifecycle?.preStop?.exec?.command.at(-1)).toBe('drain')
      expect(sleep).toBeGreaterThanOrEqual(delay)
      expect(grace).toBeGreaterThanOrEqual(sleep + timeout + 2)
    },
  )

  it.each(withPod.filter(({ pod }) => !isNative(pod)))(
    '$name: the app stays for longer than the sidecar goes on accepting',
    ({ manifests, pod }) => {
      const { sleep, delay, timeout, grace } = times(manifests, pod)
      expect(sidecarOf(pod).lifecycle).toBeUndefined()
      expect(sleep).toBeGreaterThan(delay)
      expect(grace).toBeGreaterThanOrEqual(delay + timeout + 2)
    },
  )
})

describe('the container', () => {
  const pods = Object.fromEntries(withPod.map(({ name, pod }) => [name, pod]))
  const containerOf = (name: string) => sidecarOf(pods[name] as PodSpec)

  it('is native in all but the two classic forms', () => {
    expect(Object.keys(pods).filter((name) => !isNative(pods[name] as PodSpec))).toEqual([
      'example-classic',
      'helm-classic',
    ])
  })

  it('is the same in the classic form, but for its place and its preStop', () => {
    const { restartPolicy, lifecycle, ...shared } = containerOf('example')
    expect([restartPolicy, lifecycle?.preStop?.exec?.command.length]).toEqual(['Always', 3])
    expect(containerOf('example-classic')).toEqual(shared)
  })

  it('is the same from Helm, but for what values say', () => {
    const { volumeMounts: mounts, ...shared } = containerOf('example')
    expect(containerOf('helm-minimal')).toEqual({
      ...shared,
      imagePullPolicy: 'IfNotPresent',
      volumeMounts: mounts?.filter(({ name }) => name === 'bearward-config'),
    })
    expect(containerOf('helm-parent')).toEqual(containerOf('helm-minimal'))
  })

  it('is probed on paths that the program answers', async () => {
    const sidecar = await startSidecar({
      config: { issuers: [{ issuer: 'http://127.0.0.1:9', audience: 'a' }], upstream: 'http://127.0.0.1:9' },
    })
    const { startupProbe, readinessProbe, livenessProbe } = containerOf('example')
    const statuses = await Promise.all(
      [startupProbe, livenessProbe, readinessProbe].map(async (probe) => {
        expect(probe?.httpGet?.port).toBe(9090)
        return (await fetch(sidecar.ops + (probe?.httpGet?.path as string))).status
      }),
    )
    // Without keys: started and alive, but not ready.
    expect(statuses).toEqual([200, 200, 503])
  })

  it('calls the program where the Dockerfile puts it', () => {
    const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
    const [node, program] = containerOf('example').lifecycle?.preStop?.exec?.command ?? []
    const entrypoint = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(dockerfile)?.[1] as string) as string[]
    expect(entrypoint).toEqual(expect.arrayContaining([node, program]))
    expect(dockerfile).toMatch(/^USER 65532:65532$/m)
  })
})

describe('the component', () => {
  const { manifests } = rendered.find(({ name }) => name === 'overlay-kinds') as Rendered
  const workloads = manifests.filter(({ spec }) => spec?.template !== undefined)
  const podOf = (name: string) => podsOf(workloads.filter(({ metadata }) => metadata.name === name))[0] as PodSpec

  it.each(['StatefulSet orders', 'DaemonSet agents', 'Job nightly'])('is for a %s', (workload) => {
    const [kind, name = ''] = workload.split(' ')
    const pod = podOf(name)
    expect(workloads.find(({ metadata }) => metadata.name === name)?.kind).toBe(kind)
    expect(restrictedViolations(pod)).toEqual([])
    // Before the app's own, so that they, too, find it at work.
    expect(pod.initContainers?.map((container) => container.name)).toEqual(['bearward', 'migrate'])
    expect(sidecarOf(pod)).toEqual(sidecarOf(podOf('orders')))
    // A Job gets no requests that it could lose.
    const lifecycle = kind === 'Job' ? undefined : { preStop: { sleep: { seconds: 5 } } }
    expect(pod.containers.map((container) => container.lifecycle)).toEqual([lifecycle])
  })

  it('leaves workloads without the label as they are', () => {
    expect(allContainers(podOf('others')).map(({ name }) => name)).toEqual(['migrate', 'orders'])
    expect(podOf('others').volumes).toBeUndefined()
  })
})

describe('the chart', () => {
  it('has the schema of the configuration in values.schema.json; else run: npm run generate', async () => {
    const file = join(ROOT, 'deploy/helm/bearward/values.schema.json')
    expect(readFileSync(file, 'utf8')).toBe(await renderChartSchema())
  })

  it('has no pattern in it that Helm cannot read', () => {
    const schema = readFileSync(join(ROOT, 'deploy/helm/bearward/values.schema.json'), 'utf8')
    const patterns = [...schema.matchAll(/"pattern": "(.*)"/g)].map(([, pattern]) => pattern as string)
    expect(patterns.length).toBeGreaterThan(5)
    // RE2 knows neither assertions about what is around, nor references to what was found, nor long repetitions.
    expect(patterns.filter((pattern) => /\(\?(?!:)|\\[1-9k]|\{\d{4,}|,\d{4,}\}/.test(pattern))).toEqual([])
  })

  it('has the version of the package', () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
    const chart = readFileSync(join(ROOT, 'deploy/helm/bearward/Chart.yaml'), 'utf8')
    expect(/^version: (.*)$/m.exec(chart)?.[1]).toBe(version)
    expect(/^appVersion: (.*)$/m.exec(chart)?.[1]).toBe(version)
  })
})

describe('the check of Pod Security', () => {
  const good = withPod[0]?.pod as PodSpec
  const change = ({ securityContext, ...what }: Partial<Container>): PodSpec => ({
    ...good,
    containers: good.containers.map((container) => ({
      ...container,
      ...what,
      securityContext: { ...container.securityContext, ...securityContext },
    })),
  })
  const without = (name: keyof SecurityContext): PodSpec => ({
    ...good,
    containers: good.containers.map(({ securityContext = {}, ...container }) => {
      const { [name]: _left, ...rest } = securityContext
      return { ...container, securityContext: rest }
    }),
  })

  it.each<[string, PodSpec]>([
    ['hostNetwork', { ...good, hostNetwork: true }],
    ['volume host: hostPath', { ...good, volumes: [{ name: 'host', hostPath: { path: '/' } }] }],
    ['pod: runAsUser 0', { ...good, securityContext: { runAsUser: 0 } }],
    ['orders: hostPort', change({ ports: [{ containerPort: 1, hostPort: 1 }] })],
    ['orders: privileged', change({ securityContext: { privileged: true } })],
    ['orders: allowPrivilegeEscalation', without('allowPrivilegeEscalation')],
    ['orders: runAsNonRoot', without('runAsNonRoot')],
    ['orders: seccompProfile missing', without('seccompProfile')],
    ['orders: seccomp Unconfined', change({ securityContext: { seccompProfile: { type: 'Unconfined' } } })],
    ['orders: capabilities not dropped', change({ securityContext: { capabilities: { drop: ['KILL'] } } })],
    ['orders: capability added', change({ securityContext: { capabilities: { drop: ['ALL'], add: ['SYS_ADMIN'] } } })],
  ])('finds %s', (violation, pod) => {
    expect(restrictedViolations(pod)).toEqual([violation])
  })
})
