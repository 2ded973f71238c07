import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

/** Types of frames (RFC 9113 §6). */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

/** Flags of frames; `ack` and `endStream` are the same bit. */
export const FLAG = { endStream: 1, ack: 1, endHeaders: 4 } as const

/** Error codes (RFC 9113 §7). */
export const ERROR = { none: 0, protocol: 1, internal: 2, refused: 7, cancel: 8, enhanceYourCalm: 11 } as const

export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: Buffer
}

/** One frame as it goes over the wire. */
export function frame(type: number, flags: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(id, 5)
  return Buffer.concat([head, payload])
}

/** A header block (RFC 7541): every field literally, not indexed and not compressed, so that anything can be said. */
export function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), ...toString(name), ...toString(value)]))
}

function toString(text: string): Buffer[] {
  const bytes = Buffer.from(text, 'latin1')
  return [toInteger(bytes.length), bytes]
}

/** An integer with a prefix of seven bits (RFC 7541 §5.1). */
function toInteger(value: number): Buffer {
  if (value < 127) return Buffer.from([value])
  const bytes = [127]
  let rest = value - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Buffer.from([...bytes, rest])
}

/** A HEADERS frame that holds its whole block. */
export function headers(id: number, fields: readonly (readonly [string, string])[], endStream = true): Buffer {
  return frame(FRAME.headers, FLAG.endHeaders | (endStream ? FLAG.endStream : 0), id, headerBlock(fields))
}

export function data(id: number, text: string, endStream = true): Buffer {
  return frame(FRAME.data, endStream ? FLAG.endStream : 0, id, Buffer.from(text, 'latin1'))
}

export function reset(id: number, code: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(code)
  return frame(FRAME.rstStream, 0, id, payload)
}

/** The fields of an ordinary request. */
export function request(
  path: string,
  fields: readonly (readonly [string, string])[] = [],
  method = 'GET',
): (readonly [string, string])[] {
  return [[':method', method], [':scheme', 'http'], [':authority', 'api.test'], [':path', path], ...fields]
}

/** A connection on which frames are written by hand. */
export interface RawHttp2 {
  readonly socket: Socket
  readonly frames: readonly Frame[]
  readonly closed: boolean
  send(...frames: Buffer[]): void
  /** Waits until a frame has come for which `test` says yes; `undefined` when the connection ends before. */
  wait(test: (frame: Frame) => boolean): Promise<Frame | undefined>
  /** Waits until the server has ended the connection; false when it has not after five seconds. */
  ended(): Promise<boolean>
  close(): void
}

/**
 * Opens a connection and sends the preface with empty settings. With `polite`, settings and pings are acknowledged; with
 * the certificate of an authority, it is one of TLS.
 */
export async function openHttp2(port: number, polite = true, ca?: string): Promise<RawHttp2> {
  const socket =
    ca === undefined ? connect(port, '127.0.0.1') : connectTls({ port, host: '127.0.0.1', ca, ALPNProtocols: ['h2'] })
  const frames: Frame[] = []
  const waiting = new Set<() => void>()
  const state = { closed: false }
  let rest = Buffer.alloc(0)
  const wake = () => {
    for (const check of [...waiting]) check()
  }
  socket.on('error', () => undefined)
  socket.on('close', () => {
    state.closed = true
    wake()
  })
  socket.on('data', (chunk) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const end = 9 + rest.readUIntBE(0, 3)
      const one = {
        type: rest[3] as number,
        flags: rest[4] as number,
        id: rest.readUInt32BE(5) & 0x7fffffff,
        payload: Buffer.from(rest.subarray(9, end)),
      }
      rest = rest.subarray(end)
      frames.push(one)
      if (polite && one.type === FRAME.settings && one.flags === 0) socket.write(frame(FRAME.settings, FLAG.ack, 0))
      if (polite && one.type === FRAME.ping && one.flags === 0)
        socket.write(frame(FRAME.ping, FLAG.ack, 0, one.payload))
    }
    wake()
  })
  await new Promise((resolve) => socket.once(ca === undefined ? 'connect' : 'secureConnect', resolve))
  socket.write(Buffer.concat([Buffer.from(PREFACE), frame(FRAME.settings, 0, 0)]))
  const until = <T>(check: () => T | undefined, otherwise: T): Promise<T> =>
    new Promise((resolve) => {
      const finish = (value: T) => {
        clearTimeout(timer)
        waiting.delete(look)
        resolve(value)
      }
      const timer = setTimeout(() => finish(otherwise), 5_000)
      const look = () => {
        const found = check()
        if (found !== undefined) finish(found)
        else if (state.closed) finish(otherwise)
      }
      waiting.add(look)
      look()
    })
  return {
    socket,
    frames,
    get closed() {
      return state.closed
    },
    send: (...all) => void socket.write(Buffer.concat(all)),
    wait: (test) => until<Frame | undefined>(() => frames.find(test), undefined),
    ended: () => until(() => (state.closed ? true : undefined), false),
    close: () => socket.destroy(),
  }
}

/** The error code in a RST_STREAM or GOAWAY frame. */
export function codeOf({ type, payload }: Frame): number {
  return payload.readUInt32BE(type === FRAME.goaway ? 4 : 0)
}
