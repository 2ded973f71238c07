/**
 * Renders the kustomizations and the chart into test/deploy/rendered, which is kept in the repository: the tests look at it,
 * also where the tools are not at hand, and notice by a digest of the sources when it is out of date.
 *
 * `node test/deploy/render.ts` needs kubectl (or KUBECTL) with Kustomize 4.1 or later, and helm 3.8 (or HELM) or later.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(import.meta.dirname, '../..')
const KUSTOMIZE = 'deploy/kustomize'
const CHART = 'deploy/helm/bearward'
const PARENT_CHART = 'test/deploy/parent-chart'

export interface Rendering {
  /** Name of the file in test/deploy/rendered, without `.yaml`. */
  readonly name: string
  readonly tool: 'kubectl' | 'helm'
  /** Folders, relative to the repository, whose contents decide on the result. */
  readonly sources: readonly string[]
  render(): string
}

export const TOOLS = { kubectl: process.env['KUBECTL'] ?? 'kubectl', helm: process.env['HELM'] ?? 'helm' }

function kustomization(folder: string): Rendering {
  return {
    name: folder,
    tool: 'kubectl',
    sources: [KUSTOMIZE],
    render: () => run(TOOLS.kubectl, ['kustomize', join(ROOT, KUSTOMIZE, folder)]),
  }
}

function chart(values: string): Rendering {
  const file = join(ROOT, CHART, 'ci', `${values}-values.yaml`)
  return {
    name: `helm-${values}`,
    tool: 'helm',
    sources: [CHART],
    render: () => renderChart(join(ROOT, CHART), ['--values', file]),
  }
}

const parentChart: Rendering = {
  name: 'helm-parent',
  tool: 'helm',
  sources: [CHART, PARENT_CHART],
  render() {
    const folder = mkdtempSync(join(tmpdir(), 'bearward-chart-'))
    try {
      cpSync(join(ROOT, PARENT_CHART), folder, { recursive: true })
      cpSync(join(ROOT, CHART), join(folder, 'charts/bearward'), { recursive: true })
      return renderChart(folder, [])
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
}

const OVERLAY_KINDS = 'test/deploy/overlay-kinds'
const kinds: Rendering = {
  name: 'overlay-kinds',
  tool: 'kubectl',
  sources: [KUSTOMIZE, OVERLAY_KINDS],
  render: () => run(TOOLS.kubectl, ['kustomize', join(ROOT, OVERLAY_KINDS)]),
}

export const RENDERINGS: readonly Rendering[] = [
  ...['example', 'example-classic', 'example-monitoring', 'example-annotations'].map(kustomization),
  kinds,
  ...['minimal', 'full', 'classic', 'parts'].map(chart),
  parentChart,
]

function renderChart(folder: string, more: readonly string[]): string {
  const crds = ['--api-versions', 'monitoring.coreos.com/v1']
  return run(TOOLS.helm, ['template', 'orders', folder, '--kube-version', '1.33.0', ...crds, ...more])
}

function run(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' })
}

/** A rendering as it is kept: the dashboard is two thousand lines of one value. */
export function abridge(text: string): string {
  return text.replace(/^( *)bearward\.json: \|-?\n(?:\1 .*\n|\n)+/gm, '$1bearward.json: "{}"\n')
}

/** Why the tool of a rendering cannot be used, if so. */
export function whyNot(tool: Rendering['tool']): string | undefined {
  try {
    const version = run(TOOLS[tool], tool === 'helm' ? ['version', '--short'] : ['version', '--client'])
    const kustomize = /Kustomize Version: v(\d+)\.(\d+)/.exec(version)
    if (tool === 'helm' || (kustomize !== null && Number(kustomize[1]) >= 4)) return undefined
    return `${TOOLS[tool]} has no Kustomize 4 or later`
  } catch {
    return `there is no ${TOOLS[tool]}`
  }
}

/** The first line of a rendered file. */
export function header(sources: readonly string[]): string {
  const hash = createHash('sha256')
  for (const file of sources.flatMap(filesIn).sort())
    hash.update(`${file}\0${readFileSync(join(ROOT, file), 'utf8')}\0`)
  return `# By test/deploy/render.ts from sources with the digest ${hash.digest('hex').slice(0, 16)}\n`
}

function filesIn(folder: string): string[] {
  return (
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .map((name) => join(folder, name))
      // The schema decides whether the chart is rendered, not what comes out.
      .filter((file) => statSync(join(ROOT, file)).isFile() && !/\.md$|values\.schema\.json$/.test(file))
  )
}

export function renderedFile(name: string): string {
  return join(ROOT, 'test/deploy/rendered', `${name}.yaml`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { name, tool, sources, render } of RENDERINGS) {
    const reason = whyNot(tool)
    if (reason === undefined) writeFileSync(renderedFile(name), header(sources) + abridge(render()))
    process.stdout.write(`${relative(ROOT, renderedFile(name))}${reason === undefined ? '' : `: skipped, ${reason}`}\n`)
  }
}
