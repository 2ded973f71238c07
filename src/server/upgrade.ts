import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/** How long a peer may take to close a connection on which everything is said, in milliseconds. */
const LINGER_MS = 1_000

/** The peer may read its answer, but not keep the connection: closed at once, it could lose what it has not read yet. */
export function linger(socket: Duplex): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.on('close', () => clearTimeout(timer))
  socket.resume()
}

/**
 * The response to a request to switch protocols, whose connection node:http has let go of: what is decided is answered like
 * any other request, on a connection that ends with the answer. It is still to be given its socket.
 */
export function prepareUpgrade(request: IncomingMessage, socket: Duplex): ServerResponse {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.on('finish', () => {
    // What it was given: on Node 26 not the connection itself while a body is on its way, but a stream around it.
    if (response.socket !== null) response.detachSocket(response.socket)
    socket.end()
    linger(socket)
    process.nextTick(() => response.emit('close'))
  })
  socket.on('error', () => socket.destroy())
  return response
}
