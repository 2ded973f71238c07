import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Health } from './health.ts'
import { renderStatus, type Status } from './status.ts'

/** What a request for a drain must carry: no web page and no form can send it. */
export const DRAIN_FIELD = 'x-bearward-command'
export const DRAIN_VALUE = 'drain'

export interface OpsOptions {
  readonly health: Health
  readonly metrics: Metrics
  readonly status: () => Status
  /** The pod is about to end; called any number of times. */
  readonly onDrain: () => void
}

/**
 * The handler of the ops listener. It answers these and nothing else:
 *
 * - `GET /livez`: 200 while the event loop turns
 * - `GET /startupz`: 200 once listeners are bound
 * - `GET /readyz`: 200 while traffic is welcome, else 503 with what is missing
 * - `GET /metrics`: the exposition for Prometheus
 * - `GET /status`: the state of configuration and keys, for a person
 * - `POST /drain`: from this machine alone; the pod is about to end
 */
export function createOpsHandler({
  health,
  metrics,
  status,
  onDrain,
}: OpsOptions): (req: IncomingMessage, res: ServerResponse) => void {
  const pages: Readonly<Record<string, (response: ServerResponse) => void>> = {
    '/livez': (response) => answer(response, 200, 'ok\n'),
    '/startupz': (response) => (health.started() ? answer(response, 200, 'ok\n') : answer(response, 503, 'starting\n')),
    '/readyz': (response) =>
      health.ready()
        ? answer(response, 200, 'ok\n')
        : answer(response, 503, `not ready: ${health.waitingFor().join(', ')}\n`),
    '/metrics': (response) =>
      void metrics.render().then(
        (text) => answer(response, 200, text, metrics.contentType),
        () => answer(response, 500, 'metrics failed\n'),
      ),
    '/status': (response) => answer(response, 200, renderStatus(status()), 'application/json'),
  }
  return (request, response) => {
    const [path = ''] = (request.url ?? '').split('?', 1)
    if (path === '/drain') return answerDrain(request, response, onDrain)
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'only GET\n')
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined
    if (page !== undefined) page(response)
    else answer(response, 404, `not found; here are ${Object.keys(pages).join(' ')}\n`)
  }
}

function answerDrain(request: IncomingMessage, response: ServerResponse, onDrain: () => void): void {
  if (request.method !== 'POST') return answer(response, 405, 'only POST\n')
  if (!mayDrain(request)) return answer(response, 403, 'only by "bearward drain", from the pod itself\n')
  onDrain()
  answer(response, 200, 'draining\n')
}

/** Whether a request comes from the network namespace of this process, and from a program that knows what it asks for. */
function mayDrain({ socket: { remoteAddress, localAddress }, headers }: IncomingMessage): boolean {
  // Of a connection that was reset meanwhile nothing is known.
  const isLocal = remoteAddress !== undefined && remoteAddress === localAddress
  return isLocal && headers[DRAIN_FIELD] === DRAIN_VALUE
}

function answer(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  })
  response.end(body)
}
