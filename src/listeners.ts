import type { Config } from './config/schema.ts'
import type { CallerHandler } from './server/caller.ts'
import {
  createListener,
  type ListenAddress,
  type Listener,
  type ListenerLimits,
  type RequestHandler,
} from './server/listener.ts'
import { createProxyListener } from './server/proxy-listener.ts'
import { createTlsSource, type TlsSource } from './server/tls.ts'
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
 * Opens the listener for traffic: HTTP/1.1 and HTTP/2, in the clear or over TLS.
 *
 * @throws StartError
 */
export async function openProxyListener(
  config: Config,
  handle: CallerHandler,
  telemetry: Telemetry,
): Promise<OpenListener> {
  const listener = createProxyListener({
    address: config.listen.proxy,
    limits: { ...limitsOf(config), concurrentStreams: config.limits.concurrent_streams },
    handle,
    newRequestId,
    onUnreadable: telemetry.requestUnreadable,
    onDropped: telemetry.connectionDropped,
    onHandshakeFailed: telemetry.handshakeFailed,
    tls: createConfiguredTls(config, telemetry),
  })
  return open('proxy', listener, config)
}

/**
 * Opens one of the other listeners: HTTP/1.1 in the clear.
 *
 * @throws StartError
 */
export async function openListener(
  name: 'ops' | 'helper',
  config: Config,
  handle: RequestHandler,
  telemetry: Telemetry,
): Promise<OpenListener> {
  const listener = createListener({
    address: config.listen[name],
    limits: limitsOf(config),
    handle,
    newRequestId,
    onDropped: telemetry.connectionDropped,
  })
  return open(name, listener, config)
}

function limitsOf({ limits }: Config): ListenerLimits {
  return {
    headerBytes: limits.header_bytes,
    headersTimeoutMs: limits.headers_timeout,
    keepAliveTimeoutMs: limits.keep_alive_timeout,
    sendTimeoutMs: limits.send_timeout,
    connections: limits.connections,
  }
}

async function open(name: ListenerName, listener: Listener, { listen }: Config): Promise<OpenListener> {
  try {
    return { listener, port: await listener.start() }
  } catch (error) {
    throw new StartError(describeBindError(name, listen[name], error))
  }
}

/** @throws StartError when the files cannot be used */
function createConfiguredTls({ listen: { tls } }: Config, telemetry: Telemetry): TlsSource | undefined {
  if (tls === undefined) return undefined
  const files = { certificateFile: tls.certificate_file, keyFile: tls.key_file, clientCaFile: tls.client_ca_file }
  try {
    return createTlsSource(files, telemetry.certificatesRotated)
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException
    throw new StartError(`listen.tls: the file ${path} cannot be read (${code}); name another, or remove listen.tls`)
  }
}

function describeBindError(name: ListenerName, address: ListenAddress, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
  const reasons: Record<string, string> = {
    EADDRINUSE: 'another process listens there',
    EACCES:
      'path' in address
        ? 'its folder does not exist or may not be written to'
        : 'ports below 1024 need a privilege that this process does not have',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'the host name is not known',
    EEXIST: 'there is something else than a socket',
  }
  const way = `choose another with listen.${name} or BEARWARD_${name.toUpperCase()}_LISTEN`
  const place = 'path' in address ? address.path : `${address.host}:${address.port}`
  return `cannot listen on ${place} (${name}): ${reasons[code] ?? code}; ${way}`
}
