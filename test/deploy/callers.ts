import { Agent, request } from 'node:http'

/** Callers that send without a pause, as those of a cluster do, to whichever pod is an endpoint of the Service. */
export interface Callers {
  /** Origins that requests go to; change it as pods come and go. */
  readonly endpoints: Set<string>
  /** Requests that were answered, and every answer that was no 200, by what it was instead. */
  stop(): Promise<{ readonly answered: number; readonly failures: Readonly<Record<string, number>> }>
}

const CALLERS = 16

/** Starts callers: half of them keep their connections, every third sends a body, every tenth request is a slow one. */
export function startCallers(endpoints: readonly string[], token: string): Callers {
  const current = new Set(endpoints)
  const failures: Record<string, number> = {}
  let answered = 0
  let ended = false

  const ask = (origin: string, path: string, agent: Agent | false, body: string) =>
    new Promise<string>((done) => {
      const headers = { authorization: `Bearer ${token}`, 'content-length': body.length }
      const method = body === '' ? 'GET' : 'POST'
      const sent = request(`${origin}${path}`, { method, agent, headers }, (response) => {
        response.on('error', ({ message }) => done(message))
        response.resume().on('end', () => done(String(response.statusCode)))
      })
      sent.on('error', ({ code, message }: NodeJS.ErrnoException) => done(code ?? message))
      sent.end(body)
    })

  const caller = async (i: number) => {
    const agent = i % 2 === 0 ? new Agent({ keepAlive: true }) : false
    for (let n = i; !ended; n += 1) {
      const origins = [...current]
      const origin = origins[n % origins.length]
      if (origin === undefined) {
        await new Promise((done) => setTimeout(done, 10))
        continue
      }
      const result = await ask(origin, n % 10 === 0 ? '/slow' : '/quick', agent, n % 3 === 0 ? 'x'.repeat(5_000) : '')
      answered += 1
      if (result !== '200') failures[result] = (failures[result] ?? 0) + 1
    }
    if (agent !== false) agent.destroy()
  }
  const all = Promise.all(Array.from({ length: CALLERS }, (_, i) => caller(i)))
  return {
    endpoints: current,
    async stop() {
      ended = true
      await all
      return { answered, failures }
    },
  }
}
