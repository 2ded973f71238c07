/** Sends requests for some seconds from 64 callers, and fails if one is not answered with 200: for image.sh. */
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'

const [url, tokenFile, seconds] = process.argv.slice(2) as [string, string, string]
const headers = { authorization: `Bearer ${readFileSync(tokenFile, 'utf8')}` }
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const endMs = performance.now() + Number(seconds) * 1000
let answered = 0
const failures: string[] = []

const ask = () =>
  new Promise<void>((done) => {
    const sent = request(url, { agent, headers }, (response) => {
      answered += 1
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
process.stdout.write(`   ${Math.round(answered / Number(seconds))} requests a second, ${failures.length} failed\n`)
if (failures.length > 0) process.stderr.write(`${[...new Set(failures)].join('\n')}\n`)
process.exit(failures.length > 0 || answered === 0 ? 1 : 0)
