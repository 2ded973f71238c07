import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Health } from './health.ts'

/**
 * The handler of the ops listener. It answers these and nothing else:
 *
 * - `GET /livez`: 200 while the event loop turns
 * - `GET /startupz`: 200 once listeners are bound
 * - `GET /readyz`: 200 while traffic is welcome, else 503 with what is missing
 * - `GET /metrics`: the exposition for Prometheus
 */
export function createOpsHandler(
  health: Health,
  metrics: Metrics,
): (req: IncomingMessage, res: ServerResponse) => void {
  return (request, response) => {
    const [path = ''] = (request.url ?? '').split('?', 1)
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'only GET\n')
    switch (path) {
      case '/livez':
        return answer(response, 200, 'ok\n')
      case '/startupz':
        return health.started() ? answer(response, 200, 'ok\n') : answer(response, 503, 'starting\n')
      case '/readyz':
        return health.ready()
          ? answer(response, 200, 'ok\n')
          : answer(response, 503, `not ready: ${health.waitingFor().join(', ')}\n`)
      case '/metrics':
        return void metrics.render().then(
          (text) => answer(response, 200, text, metrics.contentType),
          () => answer(response, 500, 'metrics failed\n'),
        )
      default:
        return answer(response, 404, 'not found; here are /livez /startupz /readyz /metrics\n')
    }
  }
}

function answer(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  })
  response.end(body)
}
