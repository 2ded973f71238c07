import type { Config } from './config/schema.ts'
import { createListener, type Listener, type ListenAddress, type RequestHandler } from './server/listener.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import { newRequestId } from './util/request-id.ts'

/** A listener cannot be bound; the message says which and how to choose another. Exit code 1. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

export type ListenerName = 'proxy' | 'ops' | 'helper'

export interface OpenListener {
  readonly listener: Listener
  readonly port: number
}

/**
 * Opens one listener.
 *
 * @throws StartError
 */
export async function openListener(
  name: ListenerName,
  { listen, limits }: Config,
  handle: RequestHandler,
  telemetry: Telemetry,
): Promise<OpenListener> {
  const listener = createListener({
    address: listen[name],
    limits: {
      headerBytes: limits.header_bytes,
      headersTimeoutMs: limits.headers_timeout,
      keepAliveTimeoutMs: limits.keep_alive_timeout,
    },
    handle,
    newRequestId,
    onUnreadable: (code, reason, peer, requestId) => {
      if (name === 'proxy') telemetry.requestUnreadable(code, reason, peer, requestId)
    },
  })
  try {
    return { listener, port: await listener.start() }
  } catch (error) {
    throw new StartError(describeBindError(name, listen[name], error))
  }
}

function describeBindError(name: ListenerName, { host, port }: ListenAddress, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
  const reasons: Record<string, string> = {
    EADDRINUSE: 'another process listens there',
    EACCES: 'ports below 1024 need a privilege that this process does not have',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'the host name is not known',
  }
  const way = `choose another with listen.${name} or BEARWARD_${name.toUpperCase()}_LISTEN`
  return `cannot listen on ${host}:${port} (${name}): ${reasons[code] ?? code}; ${way}`
}
