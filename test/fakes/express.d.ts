/** The part of express that the fake backends use; the package ships no types. */
declare module 'express' {
  import type { IncomingMessage, Server, ServerResponse } from 'node:http'

  type Handler = (request: IncomingMessage & { originalUrl: string }, response: ServerResponse) => void
  interface Express {
    use(path: string, handler: Handler): this
    use(handler: Handler): this
    all(path: string, handler: Handler): this
    listen(port: number, host: string, ready: () => void): Server
  }
  export default function express(): Express
}
