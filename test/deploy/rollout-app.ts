/** An API that takes its time, and ends on SIGTERM: at once, or when it has answered what it was asked. For rollout.test.ts. */
import { createServer } from 'node:http'

const server = createServer((request, response) => {
  request.resume().on('end', () => {
    setTimeout(() => response.end('ok\n'), request.url === '/slow' ? 700 : 10 + Math.random() * 20)
  })
})
server.listen(Number(process.env['PORT']), '127.0.0.1')
if (process.env['ENDS'] !== 'at once') process.on('SIGTERM', () => server.close())
