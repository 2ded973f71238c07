/** The backend of a measurement: a bare socket with one fixed answer, so that it is never what is measured. */
import { createServer, type AddressInfo } from 'node:net'

const BODY = JSON.stringify({
  orders: [1, 2, 3].map((id) => ({ id, sku: `sku-${id}`, quantity: id })),
  pad: 'x'.repeat(100),
})
const ANSWER = Buffer.from(
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
)
const END_OF_HEAD = '\r\n\r\n'

const server = createServer({ noDelay: true }, (socket) => {
  let tail = ''
  socket.on('error', () => undefined)
  socket.on('data', (chunk) => {
    // Requests have no body and come one at a time, so one ends where the bytes end with an empty line.
    tail = (tail + chunk.toString('latin1')).slice(-END_OF_HEAD.length)
    if (tail === END_OF_HEAD) socket.write(ANSWER)
  })
})
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`${JSON.stringify({ msg: 'started', proxy_port: (server.address() as AddressInfo).port })}\n`)
})
