/** Writes config/bearward.schema.json and config/reference.md from the schema. Run by `npm run generate`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { format } from 'prettier'
import * as v from 'valibot'
import { stringify } from 'yaml'
import { VARIABLES } from '../../src/config/env.ts'
import type { FieldDoc } from '../../src/config/fields.ts'
import { PRESET_SETTINGS } from '../../src/config/presets.ts'
import { schema } from '../../src/config/schema.ts'
import { CODES, GRANT_CODES } from '../../src/errors.ts'
import { METRICS, type MetricDescription } from '../../src/telemetry/metrics.ts'

type Json = Readonly<Record<string, unknown>>

/** One setting or group of settings, as the schema describes it. */
export interface Setting {
  /** Such as `issuers[].audience`; `NAME` stands for a name that the operator chooses. */
  readonly path: string
  readonly text: string
  /** The kind of value with its bounds, for people. */
  readonly kind: string
  readonly required: boolean
  /** As it would be written in the file; absent when there is none. */
  readonly default: unknown
  readonly json: Json
  readonly children: readonly Setting[]
}

/** The members of valibot's schemas that lead from one to the next. */
interface Described {
  readonly type: string
  readonly wrapped?: Described
  readonly default?: unknown
  readonly entries?: Readonly<Record<string, Described>>
  readonly item?: Described
  readonly value?: Described
  readonly pipe?: readonly { readonly type: string; readonly requirement?: unknown }[]
}

interface Notes {
  readonly doc?: FieldDoc
  readonly section?: string
}

/** The whole file as a tree of settings. */
export const SETTINGS: Setting = readSetting('', schema)

function readSetting(path: string, described: Described): Setting {
  const required = described.type !== 'optional'
  const inner = described.wrapped ?? described
  const notes: Notes = v.getMetadata(inner as v.GenericSchema)
  const shape = readShape(path, inner, notes)
  const text = notes.doc?.text ?? notes.section
  if (text === undefined) throw new Error(`the schema says nothing about ${path}`)
  // Of a group, `{}` merely means that every member has its own default.
  const written = isEmptyGroup(described.default) ? undefined : described.default
  const json = {
    description: text,
    ...shape.json,
    ...(written === undefined ? {} : { default: written }),
  }
  return { path, text, required, default: written, ...shape, json }
}

function isEmptyGroup(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0
}

type Shape = Pick<Setting, 'kind' | 'json' | 'children'>

function readShape(path: string, inner: Described, { doc }: Notes): Shape {
  if (doc !== undefined) return { kind: doc.kind, json: doc.json, children: [] }
  if (inner.entries !== undefined) return readGroup(path, inner.entries)
  if (inner.item !== undefined) {
    const item = readSetting(`${path}[]`, inner.item)
    const kind = item.children.length > 0 ? 'list of groups' : `list of: ${item.kind}`
    return { kind, json: { type: 'array', items: item.json, ...readLength(inner) }, children: item.children }
  }
  if (inner.value === undefined) throw new Error(`no description for a "${inner.type}" at ${path}`)
  const member = readSetting(`${path}.NAME`, inner.value)
  return {
    kind: 'groups by name',
    json: { type: 'object', additionalProperties: member.json },
    children: member.children,
  }
}

/** The bounds of a list; a lower bound of 0 says nothing. */
function readLength({ pipe = [] }: Described): Json {
  const bound = (type: string) => pipe.find((item) => item.type === type)?.requirement
  const [minItems, maxItems] = [bound('min_length'), bound('max_length')]
  return { ...(minItems === 0 ? {} : { minItems }), maxItems }
}

function readGroup(path: string, entries: Readonly<Record<string, Described>>): Shape {
  const prefix = path === '' ? '' : `${path}.`
  const children = Object.entries(entries).map(([key, entry]) => readSetting(`${prefix}${key}`, entry))
  const keyOf = (setting: Setting) => setting.path.slice(prefix.length)
  const isIssuer = path === 'issuers[]'
  const required = children.filter((child) => child.required).map(keyOf)
  const json = {
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(children.map((child) => [keyOf(child), child.json])),
    ...(required.length === 0 ? {} : { required: isIssuer ? required.filter((key) => key !== 'issuer') : required }),
    // Some presets know their issuer.
    ...(isIssuer ? { anyOf: [{ required: ['issuer'] }, { required: ['preset'] }] } : {}),
  }
  return { kind: 'group', json: path === 'upstream' ? orUrlAlone(json, children) : json, children }
}

/** The loader takes the URL alone for the group (see "spellOut" in load.ts). */
function orUrlAlone(group: Json, children: readonly Setting[]): Json {
  const url = children.find(({ path }) => path === 'upstream.url')
  return { anyOf: [url?.json, group] }
}

/** The JSON Schema of the file, for editors: draft 07, which yaml-language-server reads best. */
export function renderSchema(): Promise<string> {
  const document = { $schema: 'http://json-schema.org/draft-07/schema#', title: 'bearward.yaml', ...SETTINGS.json }
  return pretty(JSON.stringify(document, null, 2), 'json')
}

const CHART_SCHEMA = new URL('../../deploy/helm/bearward/values.schema.json', import.meta.url)

/** The schema of the Helm chart's values as it stands, with the configuration in it as it is now. */
export function renderChartSchema(): Promise<string> {
  const written = JSON.parse(readFileSync(CHART_SCHEMA, 'utf8')) as Json
  return pretty(JSON.stringify({ ...written, definitions: { config: forHelm(SETTINGS.json) } }, null, 2), 'json')
}

/** What RE2, and so Helm, cannot read: assertions about what is around, and more than a thousand repetitions. */
const NOT_RE2 = /\(\?<?[=!]|\{(\d+,)?\d{4,}\}/

/** Without the patterns that Helm cannot read; the program checks them. */
function forHelm(schema: Json): Json {
  const text = JSON.stringify(schema, (key, value: unknown) =>
    key === 'pattern' && typeof value === 'string' && NOT_RE2.test(value) ? undefined : value,
  )
  return JSON.parse(text) as Json
}

/** The page that describes every setting, code and environment variable. */
export function renderReference(): Promise<string> {
  const parts = [
    '# Reference',
    'Generated by `npm run generate` from `src/config/schema.ts` and `src/errors.ts`. `[]` stands for each entry of a ' +
      'list, `NAME` for a name of your choice. A key that is not listed here is an error.',
    settingsSection(),
    presetsSection(),
    codesSection(),
    grantCodesSection(),
    metricsSection(METRICS),
    environmentSection(),
  ]
  return pretty(parts.join('\n\n'), 'markdown')
}

/** Every setting, as a flat list in the order of the file. */
export function allSettings(setting: Setting = SETTINGS): readonly Setting[] {
  return setting.children.flatMap((child) => [child, ...allSettings(child)])
}

function settingsSection(): string {
  const groups = SETTINGS.children.map((group) =>
    [`### \`${group.path}\``, describe(group), ...allSettings(group).map(describeBelow)].join('\n\n'),
  )
  return ['## Settings', ...groups].join('\n\n')
}

function describeBelow(setting: Setting): string {
  return `#### \`${setting.path}\`\n\n${describe(setting)}`
}

function describe({ text, kind, required, default: written }: Setting): string {
  const fallback = written === undefined ? '' : ` Default: \`${writtenForm(written)}\`.`
  return `${text}\n\nValue: ${escape(kind)}${required ? '. Required.' : '.'}${fallback}`
}

function writtenForm(value: unknown): string {
  return Array.isArray(value) ? `[${value.join(', ')}]` : String(value)
}

function presetsSection(): string {
  const parts = Object.entries(PRESET_SETTINGS).map(([name, { text, settings }]) => {
    const filled = Object.keys(settings).length === 0 ? '' : `\n\n\`\`\`yaml\n${stringify(settings).trimEnd()}\n\`\`\``
    return `### \`preset: ${name}\`\n\n${text}${filled}`
  })
  const text =
    'A preset fills in settings of an issuer that the file does not name; only `required_claims` add up. `{issuer}` stands ' +
    'for the issuer. With `cognito` and `workos-user-management` the short form of `audience` means the claim ' +
    '`client_id`. With `entra`, `discovery_url` is filled in for issuers of version 1 and for those with `{tenantid}`. With ' +
    '`kubernetes`, a source of keys that is written takes the place of all three settings for fetching them.'
  return `## Presets\n\n${text}\n\n${parts.join('\n\n')}`
}

function codesSection(): string {
  const rows = Object.entries(CODES).map(
    ([code, { status, error, description }]) =>
      `| \`${code}\` | ${status} | ${error === undefined ? '' : `\`${error}\``} | ${escape(description)} |`,
  )
  const head = '| Code | Status | OAuth error | Description |\n| --- | --- | --- | --- |'
  const text = 'The code is in the response body, in the log line and in the label `code` of the metrics.'
  return `## Codes\n\n${text}\n\n${head}\n${rows.join('\n')}`
}

function grantCodesSection(): string {
  const rows = Object.entries(GRANT_CODES).map(([code, text]) => `| \`${code}\` | ${escape(text)} |`)
  const text =
    'The code of the token helper is in the member `code` of its answer, beside those of RFC 6749 §5.2, in the log line ' +
    'and in the label `code` of `bearward_helper_exchanges_total`.'
  return `## Codes of the token helper\n\n${text}\n\n| Code | Meaning |\n| --- | --- |\n${rows.join('\n')}`
}

/** Every metric with its labels. */
function metricsSection(metrics: readonly MetricDescription[]): string {
  const rows = metrics.map(({ name, type, labels, help }) => {
    const names = labels.map((label) => `\`${label}\``).join(', ')
    return `| \`${name}\` | ${type} | ${names} | ${escape(help)} |`
  })
  return `## Metrics\n\n| Metric | Type | Labels | Description |\n| --- | --- | --- | --- |\n${rows.join('\n')}`
}

function environmentSection(): string {
  const rows = VARIABLES.map(({ name, sets }) => `| \`${name}\` | ${escape(sets)} |`)
  const text = 'A variable that is empty counts as unset. A variable that is not listed here is ignored.'
  return `## Environment variables\n\n${text}\n\n| Variable | Sets |\n| --- | --- |\n${rows.join('\n')}`
}

/** What Markdown would read as markup in running text. */
function escape(text: string): string {
  return text.replace(/[|*_[\]<>]/g, '\\$&')
}

function pretty(source: string, parser: 'json' | 'markdown'): Promise<string> {
  return format(source, { parser, semi: false, singleQuote: true, printWidth: 120, trailingComma: 'all' })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const target = (name: string) => new URL(`../../config/${name}`, import.meta.url)
  writeFileSync(target('bearward.schema.json'), await renderSchema())
  writeFileSync(target('reference.md'), await renderReference())
  writeFileSync(CHART_SCHEMA, await renderChartSchema())
}
