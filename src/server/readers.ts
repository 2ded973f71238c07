import type { Socket } from 'node:net'

/** How often connections are looked at, in milliseconds. */
const INTERVAL_MS = 1_000

/** What a peer had taken when it was seen to leave something. */
interface Pause {
  readonly takenBytes: number
  readonly sinceMs: number
}

/**
 * Cuts the connections whose peers take nothing of what is written to them for too long: each would keep a request in
 * flight, and perhaps a connection to the upstream. Costs a request nothing.
 *
 * @param limitMs - longest time without a byte taken, give or take a second
 * @returns a function that ends it
 */
export function cutIdleReaders(connections: Iterable<Socket>, limitMs: number): () => void {
  const pauses = new WeakMap<Socket, Pause>()
  const look = () => {
    const now = performance.now()
    for (const socket of connections) {
      if (socket.writableLength === 0) continue
      const takenBytes = socket.bytesWritten - socket.writableLength
      const pause = pauses.get(socket)
      if (pause?.takenBytes !== takenBytes) pauses.set(socket, { takenBytes, sinceMs: now })
      else if (now - pause.sinceMs >= limitMs) socket.destroy()
    }
  }
  const timer = setInterval(look, INTERVAL_MS).unref()
  return () => clearInterval(timer)
}
