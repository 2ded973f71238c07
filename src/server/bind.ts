import { lstatSync, unlinkSync } from 'node:fs'
import { connect, type AddressInfo, type Server } from 'node:net'

/** Where to listen. */
export type ListenAddress =
  | {
      readonly host: string
      /** 0 for any free port. */
      readonly port: number
    }
  | {
      /** Of a Unix socket. */
      readonly path: string
    }

/**
 * Lets a server listen.
 *
 * @returns the port; 0 for a Unix socket
 * @throws Node's error when that fails
 */
export async function bind(server: Server, address: ListenAddress): Promise<number> {
  if ('path' in address) {
    await removeStale(address.path)
    await listenOnSocket(server, address.path)
    return 0
  }
  await listening(server, () => server.listen(address.port, address.host))
  return (server.address() as AddressInfo).port
}

function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', () => {
      server.off('error', reject)
      resolve()
    })
    listen()
  })
}

/** Owner and group may connect. */
const NOT_OTHERS = 0o117

/** With the mode 0660; when the server is closed, the file goes. */
function listenOnSocket(server: Server, path: string): Promise<void> {
  return listening(server, () => {
    // The file is made within the call: at no time may it be open to more than it should.
    const before = process.umask(NOT_OTHERS)
    try {
      server.listen(path)
    } finally {
      process.umask(before)
    }
  })
}

/**
 * Removes a socket that nobody listens on any more, as an ended process leaves it.
 *
 * @throws with `code` EADDRINUSE when somebody does, EEXIST when the path is something else than a socket
 */
async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket()) throw Object.assign(new Error('not a socket'), { code: 'EEXIST' })
  if (await isInUse(path)) throw Object.assign(new Error('in use'), { code: 'EADDRINUSE' })
  unlinkSync(path)
}

function isInUse(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const answer = (inUse: boolean) => {
      socket.destroy()
      resolve(inUse)
    }
    socket.once('connect', () => answer(true))
    // Any other failure than this says nothing about whether somebody listens.
    socket.once('error', ({ code }: NodeJS.ErrnoException) => answer(code !== 'ECONNREFUSED'))
  })
}
