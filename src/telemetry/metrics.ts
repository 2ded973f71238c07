import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, Histogram, Registry, type Metric } from 'prom-client'
import { Buckets, RequestCounter, type Collected } from './hot-metrics.ts'

export interface MetricDescription {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  /** Label names; their values come from closed sets: codes, configured names, fixed words. */
  readonly labels: readonly string[]
  /** Upper bounds in seconds, of a histogram. */
  readonly buckets?: readonly number[]
}

const DURATION_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5]
const HELPER_BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120]
const DECISION_BUCKETS = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1]

const describe = (
  type: 'counter' | 'gauge',
  name: string,
  labels: readonly string[],
  help: string,
): MetricDescription => ({ name, type, help, labels })

/** Every metric there is. The reference page and the tests walk this list. */
export const METRICS: readonly MetricDescription[] = [
  describe(
    'counter',
    'bearward_requests_total',
    ['rule', 'code', 'status_class'],
    'Requests answered, by rule, by code of the outcome ("ok" when the upstream answered) and by class of the status.',
  ),
  {
    name: 'bearward_request_duration_seconds',
    type: 'histogram',
    labels: ['outcome'],
    help: 'Time from the request header to the end of the response; outcome is "forwarded" or "refused".',
    buckets: DURATION_BUCKETS,
  },
  {
    name: 'bearward_decision_duration_seconds',
    type: 'histogram',
    labels: [],
    help: 'Time the gate took to decide, verification of the token included: the overhead of the sidecar.',
    buckets: DECISION_BUCKETS,
  },
  describe('gauge', 'bearward_requests_in_flight', [], 'Requests that are being served at the moment.'),
  describe(
    'counter',
    'bearward_token_cache_total',
    ['result'],
    'Tokens presented, by whether they were verified before ("hit") or not ("miss").',
  ),
  describe('gauge', 'bearward_token_cache_entries', [], 'Verified tokens that are remembered.'),
  describe('gauge', 'bearward_token_cache_bytes', [], 'Memory that they take, as estimated, in bytes.'),
  describe(
    'counter',
    'bearward_jwks_fetches_total',
    ['issuer', 'result'],
    'Fetches of the keys of an issuer; result is "success" or "failure".',
  ),
  describe('gauge', 'bearward_jwks_keys', ['issuer'], 'Usable keys of an issuer; 0 until they came.'),
  describe(
    'gauge',
    'bearward_jwks_age_seconds',
    ['issuer'],
    'Seconds since the issuer last confirmed its keys; absent until then.',
  ),
  describe(
    'gauge',
    'bearward_jwks_state',
    ['issuer', 'state'],
    '1 for the state of the keys of an issuer: "empty" (never had), "fresh", "refreshing" (fresh, fetched again ahead of ' +
      'time), "stale" (used on while the issuer does not answer) or "expired" (used no more).',
  ),
  describe(
    'counter',
    'bearward_helper_exchanges_total',
    ['client', 'grant', 'code'],
    'Token requests answered by the helper, by code of the outcome ("ok" when tokens were handed out).',
  ),
  {
    name: 'bearward_helper_duration_seconds',
    type: 'histogram',
    labels: ['grant'],
    help: 'Time from the header of a request to the helper to its answer; of device codes, the time callers wait for users.',
    buckets: HELPER_BUCKETS,
  },
  describe(
    'counter',
    'bearward_helper_coalesced_total',
    ['client'],
    'Token requests answered from an exchange that was already under way, here or at another replica.',
  ),
  describe(
    'counter',
    'bearward_helper_replayed_total',
    ['client'],
    'Token requests answered from an exchange that was over already, within the replay window.',
  ),
  describe(
    'counter',
    'bearward_helper_unshared_total',
    ['client'],
    'Grants spent while the store could not be used, so that another replica may have spent them, too.',
  ),
  describe(
    'counter',
    'bearward_helper_sealed_total',
    ['client', 'operation'],
    'Refresh tokens sealed ("seal"), opened ("open"), and refused because they could not be opened ("refuse").',
  ),
  describe(
    'gauge',
    'bearward_helper_breaker_state',
    ['issuer', 'state'],
    '1 for the state of the circuit breaker of an issuer that was left alone at least once: "closed" (asked), "open" (left ' +
      'alone) or "half_open" (tried by one request).',
  ),
  describe(
    'gauge',
    'bearward_store_state',
    ['state'],
    '1 for the state of the store that replicas share: "ready" or "unavailable". Absent when none is configured.',
  ),
  describe(
    'counter',
    'bearward_helper_validations_total',
    ['client', 'result'],
    'Answers of issuers, by what validation made of them: "valid", "refused" (nothing of it was handed out), or ' +
      '"keys_unavailable" (the same, for want of keys).',
  ),
  describe(
    'counter',
    'bearward_unexpected_errors_total',
    [],
    'Errors that are nobody else\'s fault; each has a log line "unexpected error".',
  ),
  describe('counter', 'bearward_connections_dropped_total', [], 'Connections past the limit, closed unanswered.'),
  describe(
    'counter',
    'bearward_tls_handshakes_failed_total',
    [],
    'Connections that did not get through the TLS handshake.',
  ),
  describe('counter', 'bearward_log_lines_dropped_total', [], 'Log lines lost because standard output was not read.'),
  describe(
    'counter',
    'bearward_reloads_total',
    ['result'],
    'Attempts to take a changed configuration or changed files into use; result is "success" or "failure".',
  ),
  describe(
    'gauge',
    'bearward_last_reload_successful',
    [],
    '0 while the files hold a configuration that could not be taken into use, and the one before is used on; else 1.',
  ),
  describe(
    'gauge',
    'bearward_config_loaded_timestamp_seconds',
    [],
    'When the configuration in use was loaded, in seconds since the Unix epoch.',
  ),
  describe(
    'gauge',
    'bearward_upstream_exposed',
    [],
    '1 once the upstream was found to answer on the address of the pod (POD_IP), where bearward can be got around.',
  ),
  describe('gauge', 'bearward_ready', [], '1 while readiness probes are answered with yes.'),
  describe('gauge', 'bearward_build_info', ['version', 'node'], 'Always 1; the labels tell what is running.'),
  describe('counter', 'process_cpu_seconds_total', [], 'User and system CPU time spent, in seconds.'),
  describe('gauge', 'process_resident_memory_bytes', [], 'Resident memory size in bytes.'),
  describe('gauge', 'process_start_time_seconds', [], 'Start time of the process, in seconds since the Unix epoch.'),
  describe('gauge', 'nodejs_heap_size_used_bytes', [], 'Used size of the JavaScript heap, in bytes.'),
  describe('gauge', 'nodejs_eventloop_lag_p99_seconds', [], 'Event loop delay, 99th percentile since the last scrape.'),
]

type Labels = Readonly<Record<string, string>>

/** What is counted on every request. */
export interface RequestMetrics {
  readonly requests: RequestCounter
  readonly duration: Readonly<Record<'forwarded' | 'refused', Buckets>>
  readonly decision: Buckets
}

/** The metrics of one process, to be updated by name of what happened. */
export interface Metrics extends RequestMetrics {
  /** Adds `by`, 1 unless said otherwise. */
  count(name: string, labels?: Labels, by?: number): void
  observe(name: string, seconds: number, labels?: Labels): void
  set(name: string, value: number, labels?: Labels): void
  /** Forgets all values of a gauge, so that what is gone is not shown for ever. */
  clear(name: string): void
  /** Runs before each scrape, to set gauges that are read rather than tracked. */
  onScrape(collect: () => void): void
  /** The exposition in the text format of Prometheus. */
  render(): Promise<string>
  readonly contentType: string
  close(): void
}

/** Creates the metrics in a registry of their own. */
export function createMetrics(version: string): Metrics {
  const registry = new Registry()
  const counters = new Map<string, Counter>()
  const gauges = new Map<string, Gauge>()
  const histograms = new Map<string, Histogram>()
  const { hot, collected } = createRequestMetrics()
  for (const metric of METRICS) {
    const { name, help, labels } = metric
    const values = collected.get(name)
    if (values !== undefined) {
      register(registry, metric, values)
      continue
    }
    const shape = { name, help, labelNames: [...labels], registers: [registry] }
    if (metric.type === 'counter') counters.set(name, new Counter(shape))
    else if (metric.type === 'gauge') gauges.set(name, new Gauge(shape))
    else histograms.set(name, new Histogram({ ...shape, buckets: [...(metric.buckets ?? [])] }))
  }

  // prom-client's own collectors would add an observer of every garbage collection; these five need none.
  const lag = monitorEventLoopDelay({ resolution: 20 })
  lag.enable()
  gauges.get('bearward_build_info')?.set({ version, node: process.versions.node }, 1)
  gauges.get('process_start_time_seconds')?.set(performance.timeOrigin / 1000)
  const collectors: (() => void)[] = [
    () => {
      const { user, system } = process.cpuUsage()
      const cpu = counters.get('process_cpu_seconds_total')
      cpu?.reset()
      cpu?.inc((user + system) / 1e6)
      gauges.get('process_resident_memory_bytes')?.set(process.memoryUsage.rss())
      gauges.get('nodejs_heap_size_used_bytes')?.set(process.memoryUsage().heapUsed)
      const p99 = lag.percentile(99)
      gauges.get('nodejs_eventloop_lag_p99_seconds')?.set(Number.isFinite(p99) ? p99 / 1e9 : 0)
      lag.reset()
    },
  ]

  return {
    ...hot,
    count: (name, labels = {}, by = 1) => counters.get(name)?.inc(labels, by),
    observe: (name, seconds, labels = {}) => histograms.get(name)?.observe(labels, seconds),
    set: (name, value, labels = {}) => gauges.get(name)?.set(labels, value),
    clear: (name) => gauges.get(name)?.reset(),
    onScrape: (collect) => void collectors.push(collect),
    async render() {
      for (const collect of collectors) collect()
      return registry.metrics()
    },
    contentType: registry.contentType,
    close: () => void lag.disable(),
  }
}

type Values = () => Collected['values']

/** The metrics of every request, and how to read each by its name. */
function createRequestMetrics(): { hot: RequestMetrics; collected: ReadonlyMap<string, Values> } {
  const requests = new RequestCounter()
  const duration = { forwarded: new Buckets(DURATION_BUCKETS), refused: new Buckets(DURATION_BUCKETS) }
  const decision = new Buckets(DECISION_BUCKETS)
  const durationName = 'bearward_request_duration_seconds'
  const decisionName = 'bearward_decision_duration_seconds'
  const collected = new Map<string, Values>([
    ['bearward_requests_total', () => requests.values()],
    [durationName, () => DURATIONS.flatMap((outcome) => duration[outcome].values(durationName, { outcome }))],
    [decisionName, () => decision.values(decisionName, {})],
  ])
  return { hot: { requests, duration, decision }, collected }
}

const DURATIONS = ['forwarded', 'refused'] as const

/** Puts a metric that is kept elsewhere into the registry, which asks it for its values at every scrape. */
function register(registry: Registry, { name, help, type }: MetricDescription, values: Values): void {
  const metric = { name, get: () => Promise.resolve({ name, help, type, aggregator: 'sum', values: values() }) }
  registry.registerMetric(metric as unknown as Metric)
}
