import { connect, type Socket } from 'node:net'

/** What came back over a bare socket. */
export interface RawAnswer {
  /** Status of the first response; 0 when none came. */
  readonly status: number
  readonly text: string
}

/**
 * Sends bytes as they are and reads until the peer closes, or until `done` says that enough has come.
 *
 * @param bytes - text, one byte per character
 */
export function sendRaw(port: number, bytes: string, done: (text: string) => boolean = isWhole): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => void socket.write(Buffer.from(bytes, 'latin1')))
    let text = ''
    const finish = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), text })
    }
    const timer = setTimeout(finish, 10_000)
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      if (done(text)) finish()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? finish() : reject(error)))
    socket.on('close', finish)
  })
}

/** A response with a Content-Length is there with its whole body. */
function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  const length = /^content-length: (\d+)$/im.exec(text.slice(0, end))?.[1]
  return end !== -1 && length !== undefined && text.length >= end + 4 + Number(length)
}

/** An open connection, to write and read step by step. */
export async function openRaw(
  port: number,
  localAddress = '127.0.0.1',
): Promise<{ socket: Socket; received: () => string }> {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  let text = ''
  socket.on('data', (chunk) => (text += chunk.toString('latin1')))
  socket.on('error', () => undefined)
  await new Promise((resolve) => socket.once('connect', resolve))
  return { socket, received: () => text }
}

/** A request of these lines, without a body. */
export function rawRequest(line: string, ...fields: string[]): string {
  return [`${line} HTTP/1.1`, 'Host: api.test', ...fields, '', ''].join('\r\n')
}
