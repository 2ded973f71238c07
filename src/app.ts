import { isIP } from 'node:net'
import { getHeapStatistics } from 'node:v8'
import { createOpsHandler } from './admin/handler.ts'
import { createHealth } from './admin/health.ts'
import { isLoopback } from './config/check.ts'
import type { Config } from './config/schema.ts'
import { createEgress } from './issuer/egress.ts'
import { describeFetchError } from './issuer/issuer.ts'
import { watchExposure } from './proxy/exposure.ts'
import { readProxy } from './issuer/proxy.ts'
import { createRuntime, type Runtime } from './runtime.ts'
import { createListener, type Listener, type ListenAddress, type RequestHandler } from './server/listener.ts'
import type { Log } from './telemetry/log.ts'
import { createMetrics, type Metrics } from './telemetry/metrics.ts'
import { createTelemetry, type Telemetry } from './telemetry/telemetry.ts'
import { systemClock, type Clock } from './util/clock.ts'
import { newRequestId } from './util/request-id.ts'

export interface AppOptions {
  readonly config: Config
  /** For secrets that are in environment variables. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Log
  readonly version: string
  readonly clock?: Clock
}

/** The running sidecar. */
export interface App {
  /** The ports that were bound; `helper` is absent unless a client is configured. */
  readonly ports: { readonly proxy: number; readonly ops: number; readonly helper: number | undefined }
  readonly telemetry: Telemetry
  /**
   * Stops without losing a request: not ready at once, `Connection: close` on every answer, still accepting for
   * `delayMs` (counted from an earlier notice by `bearward drain`, if there was one), then requests in flight up to the
   * configured grace. Calling it again changes nothing.
   */
  drain(delayMs: number): Promise<void>
}

/** A listener cannot be bound; the message says which and how to choose another. Exit code 1. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** The ops listener outlives the others by this, so that a last probe or scrape finds it. */
const OPS_GRACE_MS = 500

/**
 * Starts the sidecar: everything is listening when the promise resolves, whether or not issuers and upstream answer.
 *
 * @throws StartError when an address cannot be bound; ConfigError when a secret cannot be read
 */
export async function startApp({ config, env, log, version, clock = systemClock }: AppOptions): Promise<App> {
  const metrics = createMetrics(version)
  const telemetry = createTelemetry({ log, metrics, accessLog: config.telemetry.access_log, describeFetchError })
  const egress = createEgress({ proxy: readProxy(env) })
  const runtime = createRuntime({ config, env, telemetry, egress, clock })
  const state = { started: false, draining: false }
  const health = createHealth(runtime.latches, state)
  metrics.onScrape(() => metrics.set('bearward_ready', health.ready() ? 1 : 0))

  let noticedAtMs: number | undefined
  const expectEnd = (): number => {
    if (noticedAtMs !== undefined) return noticedAtMs
    log.info('draining', { delay_ms: config.drain.delay, timeout_ms: config.drain.timeout })
    state.draining = true
    listeners.proxy.drain()
    listeners.helper?.drain()
    return (noticedAtMs = performance.now())
  }

  const handleOps = createOpsHandler({ health, metrics, onDrain: () => void expectEnd() })
  const listeners = createListeners(config, runtime, telemetry, handleOps)
  const ports = await bindAll(listeners, config)
  runtime.start()
  state.started = true
  announce(log, version, ports)
  const stopWatch = watchUpstream({
    upstream: runtime.upstreamAddress,
    podIp: env['POD_IP'],
    proxyPort: ports.proxy,
    telemetry,
    clock,
  })

  let drained: Promise<void> | undefined
  const drain = async (delayMs: number) => {
    stopWatch()
    const leftMs = expectEnd() + delayMs - performance.now()
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs))
    const cut = await Promise.all([
      listeners.proxy.stop(config.drain.timeout),
      listeners.helper?.stop(config.drain.timeout) ?? 0,
    ])
    await listeners.ops.stop(OPS_GRACE_MS)
    await closeAll(runtime, egress, metrics)
    log.info('stopped', { requests_cut: cut[0] + cut[1] })
    await log.flush()
  }
  return { ports, telemetry, drain: (delayMs) => (drained ??= drain(delayMs)) }
}

interface UpstreamWatch {
  readonly upstream: Runtime['upstreamAddress']
  /** Of this machine, as text: one, or several separated by commas. */
  readonly podIp: string | undefined
  readonly proxyPort: number
  readonly telemetry: Telemetry
  readonly clock: Clock
}

/** Looks whether the upstream answers on the addresses of the pod, too. */
function watchUpstream({ upstream, podIp = '', proxyPort, telemetry, clock }: UpstreamWatch): () => void {
  const addresses = podIp.split(',').filter((address) => isIP(address) !== 0)
  // An upstream elsewhere has a way in of its own, and what answers on the port of the proxy is the proxy.
  const isHere = isLoopback(upstream.host) || addresses.includes(upstream.host)
  if (!isHere || upstream.port === proxyPort) return () => undefined
  return watchExposure({ addresses, port: upstream.port, clock, onFound: telemetry.upstreamExposed })
}

async function closeAll(runtime: Runtime, egress: { close(): Promise<void> }, metrics: Metrics): Promise<void> {
  runtime.close()
  await egress.close()
  metrics.close()
}

interface Listeners {
  readonly proxy: Listener
  readonly ops: Listener
  readonly helper: Listener | undefined
}

function createListeners(config: Config, runtime: Runtime, telemetry: Telemetry, handleOps: RequestHandler): Listeners {
  const limits = {
    headerBytes: config.limits.header_bytes,
    headersTimeoutMs: config.limits.headers_timeout,
    keepAliveTimeoutMs: config.limits.keep_alive_timeout,
  }
  const create = (address: ListenAddress, handle: RequestHandler, traffic: boolean) =>
    createListener({
      address,
      limits,
      handle,
      newRequestId,
      onUnreadable: (code, reason, peer, requestId) => {
        if (traffic) telemetry.requestUnreadable(code, reason, peer, requestId)
      },
    })
  return {
    proxy: create(config.listen.proxy, runtime.handleProxy, true),
    ops: create(config.listen.ops, handleOps, false),
    helper: runtime.handleHelper && create(config.listen.helper, runtime.handleHelper, false),
  }
}

async function bindAll(listeners: Listeners, { listen }: Config): Promise<App['ports']> {
  const bound: Listener[] = []
  const bind = async (name: 'proxy' | 'ops' | 'helper', listener: Listener): Promise<number> => {
    try {
      const port = await listener.start()
      bound.push(listener)
      return port
    } catch (error) {
      await Promise.all(bound.map((other) => other.stop(0)))
      throw new StartError(describeBindError(name, listen[name], error))
    }
  }
  return {
    ops: await bind('ops', listeners.ops),
    helper: listeners.helper && (await bind('helper', listeners.helper)),
    proxy: await bind('proxy', listeners.proxy),
  }
}

function describeBindError(name: string, { host, port }: ListenAddress, error: unknown): string {
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

function announce(log: Log, version: string, ports: App['ports']): void {
  const memory = process.constrainedMemory()
  log.info('started', {
    version,
    node: process.versions.node,
    proxy_port: ports.proxy,
    ops_port: ports.ops,
    helper_port: ports.helper,
    heap_limit_bytes: getHeapStatistics().heap_size_limit,
    // Without a limit the kernel reports a number that no machine has.
    memory_limit_bytes: memory > 0 && memory < 2 ** 50 ? memory : undefined,
  })
}
