import type { Server, Socket } from 'node:net'

/** The first bytes of every connection that speaks HTTP/2 (RFC 9113 §3.4). No request of HTTP/1.1 begins with all of them. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export interface PrefaceOptions {
  /** Takes the connections that begin with the preface. */
  readonly acceptHttp2: (socket: Socket) => void
  /** How long a new connection may keep silent, in milliseconds. */
  readonly timeoutMs: number
  /** Gets those that do. */
  readonly onSilent: (socket: Socket) => void
}

/** Connections that have not yet said what they speak. */
export interface Undecided {
  /** Closes them. */
  close(): void
}

/**
 * Puts itself before a server of HTTP/1.1 and looks at the first bytes of each connection: those that begin with the
 * preface of HTTP/2 go elsewhere, the others on to the server, which sees all of their bytes. Costs a request nothing.
 */
export function divertHttp2(server: Server, { acceptHttp2, timeoutMs, onSilent }: PrefaceOptions): Undecided {
  const undecided = new Set<Socket>()
  const [acceptHttp1] = server.listeners('connection') as ((socket: Socket) => void)[]
  if (acceptHttp1 === undefined) throw new TypeError('the server accepts no connections')
  server.removeListener('connection', acceptHttp1)

  server.on('connection', (socket: Socket) => {
    let said: Buffer | undefined
    const decide = (accept: (socket: Socket) => void) => {
      leave()
      if (said !== undefined) socket.unshift(said)
      accept.call(server, socket)
    }
    const look = () => {
      const chunk = socket.read() as Buffer | null
      if (chunk === null) return
      said = said === undefined ? chunk : Buffer.concat([said, chunk])
      const length = Math.min(said.length, PREFACE.length)
      if (said.compare(PREFACE, 0, length, 0, length) !== 0) decide(acceptHttp1)
      else if (length === PREFACE.length) decide(acceptHttp2)
    }
    const silent = () => decide(onSilent)
    const destroy = () => socket.destroy()
    const forget = () => undecided.delete(socket)
    const leave = () => {
      forget()
      socket.setTimeout(0)
      socket.off('readable', look).off('timeout', silent).off('end', destroy).off('error', destroy).off('close', forget)
    }
    undecided.add(socket)
    socket.setTimeout(timeoutMs)
    socket.on('readable', look).on('timeout', silent).on('end', destroy).on('error', destroy).on('close', forget)
  })
  return {
    close() {
      for (const socket of undecided) socket.destroy()
    },
  }
}
