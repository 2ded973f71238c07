/** What was measured of one participant. Absent: not to be had on this machine, or without meaning. */
export interface Row {
  readonly name: string
  /** At full speed. */
  readonly requestsPerSecond: number
  /** Of the process under test, at full speed, in microseconds. */
  readonly cpuPerRequest: number | undefined
  /** Its CPU time as a multiple of what the bare proxy needs. */
  readonly timesBare: number | undefined
  /** At the fixed rate, in milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly p999: number
  /** Resident memory after the run at full speed. */
  readonly megabytes: number | undefined
  /** Share of tokens that had been verified before, from 0 to 1. */
  readonly cacheHits: number | undefined
}

/** A whole run, as written to `bench.json`. */
export interface Report {
  readonly node: string
  readonly cpu: string
  readonly cores: number
  /** Length of each phase in seconds. */
  readonly duration: number
  /** Requests a second of the phase in which latency is measured. */
  readonly rate: number
  readonly rows: readonly Row[]
}

const text = (value: number | undefined, digits: number) => (value === undefined ? '-' : value.toFixed(digits))

/** The rows as a table for a terminal. */
export function renderTable({ rate, rows }: Report): string {
  const head = ['', 'requests/s', 'CPU µs', '× bare', `p50 ms @${rate}/s`, 'p99 ms', 'p99.9 ms', 'MB', 'known tokens']
  const lines = rows.map((row) => [
    row.name,
    text(row.requestsPerSecond, 0),
    text(row.cpuPerRequest, 1),
    text(row.timesBare, 2),
    text(row.p50, 2),
    text(row.p99, 2),
    text(row.p999, 2),
    text(row.megabytes, 0),
    row.cacheHits === undefined ? '-' : `${text(row.cacheHits * 100, 0)} %`,
  ])
  return alignColumns([head, ...lines])
}

/** The first column to the left, the others to the right. */
export function alignColumns(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)))
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)
  return lines.map((line) => `${line.map(pad).join('  ')}\n`).join('')
}

const CHART = { width: 760, left: 210, right: 130, top: 56, row: 34, bar: 20 }

/** CPU time per request as a bar chart. Rows without a figure are left out. */
export function renderChart({ node, cpu, rows }: Report): string {
  const measured = rows.filter((row) => row.cpuPerRequest !== undefined)
  const longest = Math.max(1, ...measured.map((row) => row.cpuPerRequest ?? 0))
  const height = CHART.top + measured.length * CHART.row + 16
  const bars = measured.map((row, i) => {
    const value = row.cpuPerRequest ?? 0
    const y = CHART.top + i * CHART.row
    const width = (value / longest) * (CHART.width - CHART.left - CHART.right)
    const middle = y + CHART.bar / 2 + 5
    const label = `${text(value, 1)} µs${row.timesBare === undefined ? '' : `  (${text(row.timesBare, 2)} ×)`}`
    return (
      `  <text x="${CHART.left - 10}" y="${middle}" text-anchor="end">${escapeXml(row.name)}</text>\n` +
      `  <rect x="${CHART.left}" y="${y}" width="${width.toFixed(1)}" height="${CHART.bar}" fill="${i === 0 ? '#9aa5b1' : '#2f6f4f'}"/>\n` +
      `  <text x="${(CHART.left + width + 8).toFixed(1)}" y="${middle}">${label}</text>\n`
    )
  })
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${CHART.width}" height="${height}" ` +
    'font-family="sans-serif" font-size="14">\n' +
    `  <rect width="${CHART.width}" height="${height}" fill="#ffffff"/>\n` +
    '  <text x="16" y="24" font-weight="bold">CPU time per request (in brackets: multiple of a bare proxy)</text>\n' +
    `  <text x="16" y="42" font-size="11" fill="#555555">Node ${node}, ${escapeXml(cpu)}</text>\n` +
    `${bars.join('')}</svg>\n`
  )
}

function escapeXml(value: string): string {
  return value.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
}
