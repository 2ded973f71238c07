import { isIP } from 'node:net'
import { getHeapStatistics } from 'node:v8'
import { createOpsHandler } from './admin/handler.ts'
import { createHealth, type Health } from './admin/health.ts'
import type { Status } from './admin/status.ts'
import { isLoopback } from './config/hosts.ts'
import { fixedFaults } from './config/fixed.ts'
import type { LoadedConfig } from './config/load.ts'
import { NotAppliedError } from './config/reload.ts'
import type { Config } from './config/schema.ts'
import { ConfigError } from './errors.ts'
import { createEgress } from './issuer/egress.ts'
import { describeFetchError } from './issuer/issuer.ts'
import { readProxy } from './issuer/proxy.ts'
import { openListener, openProxyListener, StartError, type OpenListener } from './listeners.ts'
import type { ProcessContext } from './parts.ts'
import { watchExposure } from './proxy/exposure.ts'
import { createRuntime, loadHelper, type HelperCreator, type Runtime } from './runtime.ts'
import type { CallerHandler } from './server/caller.ts'
import type { RequestHandler } from './server/listener.ts'
import { endSpending } from './spending.ts'
import type { Log } from './telemetry/log.ts'
import { createMetrics, type Metrics } from './telemetry/metrics.ts'
import { createTelemetry, type Telemetry } from './telemetry/telemetry.ts'
import { systemClock, type Clock } from './util/clock.ts'

export { StartError } from './listeners.ts'

export interface AppOptions {
  readonly config: Config
  /** For secrets that are in environment variables, and POD_IP. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Log
  readonly version: string
  readonly clock?: Clock
}

/** The running sidecar. */
export interface App {
  /** The ports that are bound; `helper` is absent unless a client is configured, and 0 for a Unix socket. */
  readonly ports: { readonly proxy: number; readonly ops: number; readonly helper: number | undefined }
  readonly telemetry: Telemetry
  /** The configuration in use. */
  readonly config: Config
  /**
   * Takes another configuration into use without failing a request: what did not change lives on, what did is built, has
   * its keys before it serves, and replaces the old, which ends with its last request. One at a time.
   *
   * @throws ConfigError for settings that cannot change while it runs and secrets that cannot be read; NotAppliedError while
   * the keys of a new issuer cannot be had, or a listener cannot be opened. Then nothing has changed.
   */
  reload(loaded: LoadedConfig): Promise<void>
  /** Writes down how an attempt to reload ended: its problems, or none. */
  reloadFinished(problems: readonly string[]): void
  /**
   * Stops without losing a request: not ready at once, `Connection: close` on every answer, still accepting for
   * `delayMs` (counted from an earlier notice by `bearward drain`, if there was one), then requests in flight up to the
   * configured grace. Calling it again changes nothing.
   */
  drain(delayMs: number): Promise<void>
}

/** The ops listener outlives the others by this, so that a last probe or scrape finds it. */
const OPS_GRACE_MS = 500
/** Spends whose callers left have this long at least, when requests took all the time there was. */
const SPENDS_GRACE_MS = 1_000
/** How long the keys of a new issuer may take before the configuration that names it is given up, for now. */
const KEYS_LIMIT_MS = 10_000
const KEYS_CHECK_MS = 20

/**
 * Starts the sidecar: everything is listening when the promise resolves, whether or not issuers and upstream answer.
 *
 * @throws StartError when an address cannot be bound; ConfigError when a secret cannot be read
 */
export async function startApp(options: AppOptions): Promise<App> {
  const sidecar = new Sidecar(options, await loadHelper(options.config))
  await sidecar.start()
  return sidecar
}

class Sidecar implements App {
  readonly telemetry: Telemetry
  readonly #log: Log
  readonly #version: string
  readonly #metrics: Metrics
  readonly #health: Health
  readonly #context: ProcessContext
  readonly #state = { started: false, draining: false }
  readonly #status: { loadedAtMs: number; reload: Status['config']['reload'] }
  readonly #open: { proxy?: OpenListener; ops?: OpenListener; helper?: OpenListener } = {}
  readonly #ending = new AbortController()
  #config: Config
  #runtime: Runtime
  #endWatch: () => void = () => undefined
  #noticedAtMs: number | undefined
  #drained: Promise<void> | undefined

  constructor({ config, env, log, version, clock = systemClock }: AppOptions, createHelper: HelperCreator | undefined) {
    this.#log = log
    this.#version = version
    this.#config = config
    this.#metrics = createMetrics(version)
    const accessLog = () => this.#config.telemetry.access_log
    this.telemetry = createTelemetry({ log, metrics: this.#metrics, clock, accessLog, describeFetchError })
    this.#context = {
      env,
      telemetry: this.telemetry,
      egress: createEgress({ proxy: readProxy(env) }),
      tunnels: new Set(),
      clock,
      ending: this.#ending.signal,
    }
    this.#runtime = createRuntime({ ...this.#context, config, createHelper })
    this.#health = createHealth(() => this.#runtime.latches, this.#state)
    this.#metrics.onScrape(() => this.#metrics.set('bearward_ready', this.#health.ready() ? 1 : 0))
    this.#status = { loadedAtMs: clock.now(), reload: undefined }
  }

  get config(): Config {
    return this.#config
  }

  get ports(): App['ports'] {
    const { proxy, ops, helper } = this.#open
    return { proxy: proxy?.port ?? 0, ops: ops?.port ?? 0, helper: helper?.port }
  }

  async start(): Promise<void> {
    const handleOps = createOpsHandler({
      health: this.#health,
      metrics: this.#metrics,
      status: () => this.#describe(),
      onDrain: () => void this.#expectEnd(),
    })
    try {
      this.#open.ops = await openListener('ops', this.#config, handleOps, this.telemetry)
      await this.#openHelper(this.#runtime)
      const handleProxy: CallerHandler = (request, response, expectsContinue, fault) =>
        this.#runtime.handleProxy(request, response, expectsContinue, fault)
      this.#open.proxy = await openProxyListener(this.#config, handleProxy, this.telemetry)
    } catch (error) {
      await Promise.all(Object.values(this.#open).map(({ listener }) => listener.stop(0)))
      throw error
    }
    this.#runtime.start()
    this.#runtime.show()
    this.#state.started = true
    this.telemetry.configLoaded(this.#status.loadedAtMs)
    announce(this.#log, this.#version, this.ports, this.#config)
    this.#watchUpstream()
  }

  async reload({ config, locate }: LoadedConfig): Promise<void> {
    const faults = fixedFaults(this.#config, config)
    if (faults.length > 0) throw new ConfigError(faults.map(locate))
    const createHelper = await loadHelper(config)
    const next = createRuntime({ ...this.#context, config, createHelper }, this.#runtime.parts)
    next.start()
    try {
      // Without keys the old one is no better than the new one.
      if (this.#runtime.latches.every(({ isOpen }) => isOpen())) await untilOpen(next.latches)
      if (this.#state.draining) throw new NotAppliedError('the process is ending')
      await this.#openHelper(next, config)
    } catch (error) {
      void next.retire()
      throw error instanceof StartError ? new NotAppliedError(error.message) : error
    }
    this.#replace(config, next)
  }

  #replace(config: Config, next: Runtime): void {
    const old = this.#runtime
    this.#runtime = next
    this.#config = config
    next.show()
    void old.retire()
    this.#log.setLevel(config.telemetry.log_level)
    this.#status.loadedAtMs = this.#context.clock.now()
    this.telemetry.configLoaded(this.#status.loadedAtMs)
    this.#watchUpstream()
    if (next.handleHelper === undefined) {
      void this.#open.helper?.listener.stop(config.drain.timeout)
      delete this.#open.helper
    }
  }

  reloadFinished(problems: readonly string[]): void {
    this.#status.reload = { at: this.#context.clock.now(), problems }
    this.telemetry.reloaded(problems)
  }

  /** Opens the helper's listener when a runtime needs one and there is none. */
  async #openHelper({ handleHelper }: Runtime, config = this.#config): Promise<void> {
    if (handleHelper === undefined || this.#open.helper !== undefined) return
    const handle: RequestHandler = (...call) => this.#runtime.handleHelper?.(...call)
    this.#open.helper = await openListener('helper', config, handle, this.telemetry)
  }

  drain(delayMs: number): Promise<void> {
    return (this.#drained ??= this.#drain(delayMs))
  }

  async #drain(delayMs: number): Promise<void> {
    const { proxy, helper, ops } = this.#open
    const { timeout } = this.#config.drain
    this.#endWatch()
    const leftMs = this.#expectEnd() + delayMs - performance.now()
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs))
    for (const tunnel of this.#context.tunnels) tunnel.close(1001)
    this.#ending.abort()
    const untilMs = performance.now() + timeout
    const cut = await Promise.all([proxy?.listener.stop(timeout) ?? 0, helper?.listener.stop(timeout) ?? 0])
    // A spend under way is not given up because its caller left.
    await endSpending(this.#runtime.parts, Math.max(SPENDS_GRACE_MS, untilMs - performance.now()))
    await ops?.listener.stop(OPS_GRACE_MS)
    void this.#runtime.retire()
    await this.#context.egress.close()
    this.#metrics.close()
    this.#log.info('stopped', { requests_cut: cut[0] + cut[1] })
    await this.#log.flush()
  }

  /** From now on it is not ready and closes connections after each answer, and goes on serving. Returns since when. */
  #expectEnd(): number {
    if (this.#noticedAtMs !== undefined) return this.#noticedAtMs
    const { delay, timeout } = this.#config.drain
    this.#log.info('draining', { delay_ms: delay, timeout_ms: timeout })
    this.#state.draining = true
    this.#open.proxy?.listener.drain()
    this.#open.helper?.listener.drain()
    return (this.#noticedAtMs = performance.now())
  }

  /** Looks whether the upstream answers on the addresses of the pod, too. */
  #watchUpstream(): void {
    this.#endWatch()
    const { env, clock } = this.#context
    const { host, port } = this.#runtime.upstreamAddress ?? { host: '', port: 0 }
    const addresses = (env['POD_IP'] ?? '').split(',').filter((address) => isIP(address) !== 0)
    // An upstream elsewhere has a way in of its own, and what answers on the port of the proxy is the proxy.
    const isHere = isLoopback(host) || addresses.includes(host)
    if (!isHere || port === this.ports.proxy) return
    this.#endWatch = watchExposure({ addresses, port, clock, onFound: this.telemetry.upstreamExposed })
  }

  #describe(): Status {
    const { loadedAtMs, reload } = this.#status
    return {
      version: this.#version,
      ready: this.#health.ready(),
      waiting_for: this.#health.waitingFor(),
      config: { loaded_at: loadedAtMs, reload },
      issuers: this.#runtime.parts.issuers.map(({ value: { issuer } }) => ({ name: issuer.name, ...issuer.status() })),
      store: this.#runtime.parts.store?.value.status(),
    }
  }
}

/** @throws NotAppliedError after a while, naming what is missing */
async function untilOpen(latches: Runtime['latches']): Promise<void> {
  const deadlineMs = performance.now() + KEYS_LIMIT_MS
  for (;;) {
    const closed = latches.filter(({ isOpen }) => !isOpen())
    if (closed.length === 0) return
    if (performance.now() > deadlineMs) {
      throw new NotAppliedError(`the ${closed.map(({ name }) => name).join(', the ')} cannot be had`)
    }
    await new Promise((resolve) => setTimeout(resolve, KEYS_CHECK_MS))
  }
}

function announce(log: Log, version: string, ports: App['ports'], { listen }: Config): void {
  const socket = ports.helper !== undefined && 'path' in listen.helper ? listen.helper.path : undefined
  const memory = process.constrainedMemory()
  log.info('started', {
    version,
    node: process.versions.node,
    proxy_port: ports.proxy,
    ops_port: ports.ops,
    helper_port: ports.helper === 0 ? undefined : ports.helper,
    helper_socket: socket,
    heap_limit_bytes: getHeapStatistics().heap_size_limit,
    // Without a limit the kernel reports a number that no machine has.
    memory_limit_bytes: memory > 0 && memory < 2 ** 50 ? memory : undefined,
  })
}
