/**
 * Run by `npm run soak`: callers that leave at random points, a backend that closes connections just before they are used
 * again, slow readers; for as long as asked. Exit code 0 when everything is back at the start afterwards, else 1.
 */
import { parseArgs } from 'node:util'
import { soak, type Round } from './soak.ts'

const HELP = `Sends callers that leave at random points to bearward, and looks whether anything stays behind.

Usage: npm run soak -- [OPTIONS]

Options:
  --minutes N   How long, beside a warm-up and the rests; default 1. Each minute is a round, and a line.
  --rate N      Callers a second, each with up to nine requests; default 200.
  --seed N      What is drawn by lot is the same for the same seed; default 1.
  --help        This text.

A tenth each, more or less: HTTP/1.1 callers that leave within the header, the body, before and within the response, that
read slowly, that keep their connection; HTTP/2 callers that reset streams or vanish; WebSockets. The table shows what the
process holds after each round, at rest and after a full garbage collection. Exit codes: 0 nothing stayed behind and no
promise was broken, 1 something did, 64 wrong usage.
`

const MIB = 1024 * 1024
const COLUMNS = ['round', 'seconds', 'callers', 'descriptors', 'heap MiB', 'external MiB', 'resident MiB', 'in flight']

process.exitCode = await run(process.argv.slice(2))
process.exit()

async function run(args: string[]): Promise<number> {
  const options = readOptions(args)
  if (options === undefined) return 64
  if (options === 'help') {
    process.stdout.write(HELP)
    return 0
  }
  const { minutes, rate, seed } = options
  process.stdout.write(`${COLUMNS.map(pad).join('')}\n`)
  const { kinds, lost, faults } = await soak({
    rounds: Math.max(1, Math.ceil(minutes)),
    callersPerRound: Math.ceil(rate * 60 * Math.min(1, minutes)),
    warmUp: Math.ceil(rate * 60 * Math.min(1, minutes)),
    callersPerSecond: rate,
    seed,
    onRound: (round) => void process.stdout.write(`${toRow(round).map(pad).join('')}\n`),
  })
  process.stdout.write(`\nCallers of each kind:\n`)
  for (const [kind, count] of Object.entries(kinds)) process.stdout.write(`  ${count} ${kind}\n`)
  process.stdout.write(`POSTs answered 502, on connections that the backend had closed: ${lost}\n`)
  for (const fault of faults) process.stdout.write(`FAULT: ${fault}\n`)
  process.stdout.write(faults.length === 0 ? 'Nothing stayed behind.\n' : 'Not passed.\n')
  return faults.length === 0 ? 0 : 1
}

function readOptions(args: string[]): 'help' | Record<'minutes' | 'rate' | 'seed', number> | undefined {
  const text = { type: 'string' } as const
  try {
    const options = { minutes: text, rate: text, seed: text, help: { type: 'boolean' } } as const
    const { values } = parseArgs({ args, options })
    if (values.help === true) return 'help'
    const { minutes = '1', rate = '200', seed = '1' } = values
    const numbers = { minutes: Number(minutes), rate: Number(rate), seed: Number(seed) }
    if (numbers.minutes > 0 && numbers.rate > 0 && Number.isInteger(numbers.seed)) return numbers
    process.stderr.write('--minutes and --rate are numbers above 0, --seed is a whole number.\n')
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`)
  }
  return undefined
}

function toRow({ number, seconds, callers, holdings }: Round): string[] {
  const { descriptors, heapBytes, externalBytes, residentBytes, requestsInFlight } = holdings
  const mib = [heapBytes, externalBytes, residentBytes].map((bytes) => (bytes / MIB).toFixed(1))
  return [
    number === 0 ? 'warm-up' : String(number),
    seconds.toFixed(0),
    String(callers),
    String(descriptors),
    ...mib,
    String(requestsInFlight),
  ]
}

function pad(text: string): string {
  return text.padStart(13)
}
