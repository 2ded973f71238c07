/**
 * Sends requests for some seconds from 64 callers with the tokens of a file in turn, and fails if one is not answered with
 * 200: for image.sh and sizing.sh.
 */
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'

const [url, tokenFile, seconds] = process.argv.slice(2) as [string, string, string]
const tokens = readFileSync(tokenFile, 'utf8').trim().split('\n')
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const endMs = performance.now() + Number(seconds) * 1000
const latenciesMs: number[] = []
let sentCount = 0
const failures: string[] = []

const ask = () =>
  new Promise<void>((done) => {
    const headers = { authorization: `Bearer ${tokens[(sentCount += 1) % tokens.length]}` }
    const began = performance.now()
    const sent = request(url, { agent, headers }, (response) => {
      latenciesMs.push(performance.now() - began)
      if (response.statusCode !== 200) failures.push(String(response.statusCode))
      response.resume().on('end', done)
    })
    sent.on('error', (error) => {
      failures.push(error.message)
      done()
    })
    sent.end()
  })

await Promise.all(
  Array.from({ length: 64 }, async () => {
    while (performance.now() < endMs) await ask()
  }),
)
latenciesMs.sort((one, other) => one - other)
const share = (part: number) => (latenciesMs[Math.floor(latenciesMs.length * part)] ?? 0).toFixed(1)
const rate = Math.round(latenciesMs.length / Number(seconds))
process.stdout.write(
  `${rate} requests a second, ${share(0.5)} ms median, ${share(0.99)} ms at 99 %, ${failures.length} failed\n`,
)
if (failures.length > 0) process.stderr.write(`${[...new Set(failures)].join('\n')}\n`)
process.exit(failures.length > 0 || latenciesMs.length === 0 ? 1 : 0)
