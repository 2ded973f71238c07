// A sample API: answers with what it learned about the caller. It verifies nothing; bearward has.
import { createServer } from 'node:http'

const { HOST = '127.0.0.1', PORT = '3000' } = process.env

const server = createServer((request, response) => {
  const identity = Object.entries(request.headers).filter(([name]) => name.startsWith('x-auth-'))
  const body = request.url === '/healthz' ? { ok: true } : { path: request.url, you: Object.fromEntries(identity) }
  response.setHeader('content-type', 'application/json')
  response.end(`${JSON.stringify(body)}\n`)
})

server.listen(Number(PORT), HOST)
// What is under way is answered, then it ends.
process.on('SIGTERM', () => server.close())
