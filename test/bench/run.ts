/**
 * Run by `npm run bench`: what a request costs through bearward, beside a direct call and a bare proxy that verifies
 * nothing. Needs Node and bash alone. Figures of different machines do not compare, ratios within one run do.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { measureAll } from './measure.ts'
import { BenchError } from './process.ts'
import { renderChart, renderTable, type Report } from './report.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const HELP = `Measures what a request costs through bearward, beside a direct call and a bare proxy that verifies nothing.

Usage: npm run bench -- [OPTIONS]

Options:
  --duration SECONDS   Length of each of the two measured phases; default 4.
  --rate N             Requests a second in the phase that measures latency; default 2000.
  --out FOLDER         Where bench.json and bench.svg go; default out.
  --main FILE          What to run as bearward; default dist/main.js.
  --help               This text.

The first phase goes as fast as 64 connections allow: requests a second, CPU time, memory. The second keeps the rate:
latency. Warm: 500 tokens in rotation, all seen before. Cold: so many that hardly one
is remembered.
`

interface Options {
  readonly duration: number
  readonly rate: number
  readonly out: string
  readonly main: string
}

class UsageError extends Error {}

const folder = mkdtempSync(join(tmpdir(), 'bearward-bench-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))

try {
  await run(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof UsageError || error instanceof BenchError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = error instanceof UsageError ? 64 : 1
}
process.exit()

async function run(argv: string[]): Promise<void> {
  const options = readOptions(argv)
  if (options === undefined) return void process.stdout.write(HELP)
  const { duration, rate, out, main } = options
  if (!existsSync(main)) throw new BenchError(`There is no ${main}: run "npm run build" first.`)
  const onStep = (text: string) => void process.stderr.write(`${text} …\n`)
  const report: Report = {
    node: process.versions.node,
    cpu: cpus()[0]?.model ?? 'unknown processor',
    cores: availableParallelism(),
    duration,
    rate,
    rows: await measureAll({ duration, rate, main, folder, onStep }),
  }
  mkdirSync(out, { recursive: true })
  const [json, chart] = [join(out, 'bench.json'), join(out, 'bench.svg')]
  writeFileSync(json, `${JSON.stringify(report, null, 2)}\n`)
  writeFileSync(chart, renderChart(report))
  process.stdout.write(`\n${renderTable(report)}\nWritten: ${json}, ${chart}\n`)
}

/** @returns `undefined` when help was asked for */
function readOptions(argv: string[]): Options | undefined {
  const values = parseFlags(argv)
  if (values.help === true) return undefined
  return {
    duration: readNumber('duration', values.duration ?? '4', 0.05, 300),
    rate: readNumber('rate', values.rate ?? '2000', 1, 100_000),
    out: resolve(values.out ?? join(ROOT, 'out')),
    main: resolve(values.main ?? join(ROOT, 'dist/main.js')),
  }
}

function parseFlags(args: string[]) {
  const text = { type: 'string' } as const
  try {
    const options = { duration: text, rate: text, out: text, main: text, help: { type: 'boolean' } } as const
    return parseArgs({ args, options }).values
  } catch (error) {
    throw usage((error as Error).message.split(/\.\s/, 1)[0] as string)
  }
}

function readNumber(name: string, value: string, least: number, most: number): number {
  const number = value.trim() === '' ? NaN : Number(value)
  if (number >= least && number <= most) return number
  throw usage(`--${name} takes a number from ${least} to ${most}, not "${value}"`)
}

function usage(fault: string): UsageError {
  return new UsageError(`${fault}. See "npm run bench -- --help".`)
}
