import { request } from 'node:http'
import { parseArgs } from 'node:util'
import { readOpsAddress, type OpsAddress } from '../config/ops-address.ts'
import { ConfigError } from '../errors.ts'

/** What the commands that ask a running sidecar work with. */
export interface OpsIo {
  readonly stdout: (text: string) => void
  readonly stderr: (text: string) => void
  readonly env: Readonly<Record<string, string | undefined>>
}

export interface OpsQuestion {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Where to ask, as far as the command line says. */
export interface OpsPlace {
  readonly ops?: string
  readonly file?: string
}

const TIMEOUT_MS = 2_000
/** No answer to these questions is longer. */
const MAX_ANSWER_BYTES = 4096

/** Options that name the ops listener, and what else the command line holds; or a sentence about its misuse. */
export function readOpsOptions(
  argv: readonly string[],
  command: string,
): (OpsPlace & { readonly words: readonly string[] }) | { readonly misuse: string } {
  try {
    const options = { ops: { type: 'string' }, config: { type: 'string', short: 'c' } } as const
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true })
    const { ops, config: file } = values
    return { ...(ops === undefined ? {} : { ops }), ...(file === undefined ? {} : { file }), words: positionals }
  } catch (error) {
    return { misuse: `${(error as Error).message.split(/\.\s/, 1)[0]}. See "bearward ${command} --help".` }
  }
}

/**
 * Asks the ops listener of a sidecar on this machine, and prints its answer.
 *
 * @returns the exit code: 0 for an answer of 200, 1 for any other or none, 78 when its address cannot be told
 */
export async function askOps(where: OpsPlace, question: OpsQuestion, { stdout, stderr, env }: OpsIo): Promise<number> {
  let address: OpsAddress
  try {
    address = readOpsAddress({ ops: where.ops, file: where.file, env })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    stderr(`${error.message}\n`)
    return 78
  }
  const answer = await send(address, question)
  if (typeof answer === 'string') {
    stderr(`${answer}${address.fallback === undefined ? '' : ` (the default address: ${address.fallback})`}\n`)
    return 1
  }
  const { status, text } = answer
  if (status === 200) stdout(`${text}\n`)
  else stderr(`${status}: ${text}\n`)
  return status === 200 ? 0 : 1
}

/** The answer, or a sentence about why there is none. */
function send(
  { host, port }: OpsAddress,
  { method, path, headers = {} }: OpsQuestion,
): Promise<{ readonly status: number; readonly text: string } | string> {
  return new Promise((resolve) => {
    const place = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
    const fail = (why: string) => resolve(`bearward does not answer at ${place}: ${why}`)
    const signal = AbortSignal.timeout(TIMEOUT_MS)
    const sent = request({ host, port, method, path, headers, agent: false, signal }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        if (text.length < MAX_ANSWER_BYTES) text += chunk
      })
      response.on('error', () => fail('the answer was cut off'))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: text.trim() }))
    })
    sent.on('error', (error: NodeJS.ErrnoException) => fail(describe(error)))
    sent.end()
  })
}

function describe({ name, code }: NodeJS.ErrnoException): string {
  if (name === 'AbortError' || name === 'TimeoutError') return `no answer within ${TIMEOUT_MS / 1000} s`
  return code === 'ECONNREFUSED' ? 'nothing listens there' : (code ?? 'unknown')
}
