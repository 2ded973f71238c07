/** Asks what listens on the ports of a pod, from wherever it is started: for namespaces.ts. Prints a list of answers. */
import { connect } from 'node:net'

export interface Question {
  readonly port: number
  /** Bytes to send, one per character. */
  readonly bytes: string
  /** Address to ask from. */
  readonly from: string
}

export interface Answer {
  /** Status of the response. */
  readonly status?: number
  /** All that came. */
  readonly text: string
  /** Why nothing came: an error code of the socket, or `no answer` within 2 s. */
  readonly error?: string
}

const LIMIT_MS = 2_000

const [host, questions] = process.argv.slice(2) as [string, string]

function ask({ port, bytes, from }: Question): Promise<Answer> {
  return new Promise((done) => {
    let text = ''
    const socket = connect({ host, port, localAddress: from }, () => void socket.write(Buffer.from(bytes, 'latin1')))
    const finish = (error?: string) => {
      clearTimeout(timer)
      socket.destroy()
      const status = /^HTTP\/1\.1 (\d{3})/.exec(text)?.[1]
      done(status === undefined ? { text, error: error ?? 'closed' } : { status: Number(status), text })
    }
    const timer = setTimeout(() => finish('no answer'), LIMIT_MS)
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    socket.on('error', ({ code }: NodeJS.ErrnoException) => finish(code))
    socket.on('close', () => finish())
  })
}

const answers = await Promise.all((JSON.parse(questions) as Question[]).map(ask))
process.stdout.write(JSON.stringify(answers))
