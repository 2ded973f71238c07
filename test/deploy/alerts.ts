/** For every alert a situation in which it fires, and a similar one in which it does not, as series for promtool. */

export interface AlertCase {
  readonly alert: string
  /** When to look, in minutes. */
  readonly atMinutes: number
  /** Series by name with labels; values in the notation of promtool, one a minute. */
  readonly fires: Readonly<Record<string, string>>
  readonly quiet: Readonly<Record<string, string>>
}

const POD = 'namespace="shop",job="shop/bearward",pod="a"'
/** A series of the pod. */
const of = (metric: string, labels = '') => `${metric}{${POD}${labels === '' ? '' : `,${labels}`}}`
const requests = (code: string, status: number) =>
  of('bearward_requests_total', `rule="default",code="${code}",status_class="${status}xx"`)
const exchanges = (code: string) =>
  of('bearward_helper_exchanges_total', `client="web",grant="refresh_token",code="${code}"`)
const keys = (state: string) => of('bearward_jwks_state', `issuer="main",state="${state}"`)
const fetches = (result: string) => of('bearward_jwks_fetches_total', `issuer="main",result="${result}"`)
const decisions = (le: string) => of('bearward_decision_duration_seconds_bucket', `le="${le}"`)
const validations = (result: string) => of('bearward_helper_validations_total', `client="web",result="${result}"`)
const breaker = (state: string) => of('bearward_helper_breaker_state', `issuer="main",state="${state}"`)
const store = (state: string) => of('bearward_store_state', `state="${state}"`)
const seals = (operation: string) => of('bearward_helper_sealed_total', `client="web",operation="${operation}"`)
const INFO = of('bearward_build_info', 'version="1",node="24"')
/** Sixty a minute: one a second. */
const STEADY = '0+60x500'

export const ALERT_CASES: readonly AlertCase[] = [
  { alert: 'BearwardDown', atMinutes: 10, fires: { [of('up')]: '0x20' }, quiet: { [of('up')]: '0 0 0 1x20' } },
  {
    alert: 'BearwardNotReady',
    atMinutes: 15,
    fires: { [of('bearward_ready')]: '0x20' },
    quiet: { [of('bearward_ready')]: '0x8 1x20' },
  },
  {
    alert: 'BearwardRestarting',
    atMinutes: 60,
    fires: { [of('process_start_time_seconds')]: '1x10 2x10 3x10 4x40', [INFO]: '1x90' },
    // The app in the same cluster restarts, too, and is not our business.
    quiet: { 'process_start_time_seconds{namespace="shop",job="app",pod="a"}': '1x10 2x10 3x10 4x40', [INFO]: '1x90' },
  },
  {
    alert: 'BearwardUnexpectedErrors',
    atMinutes: 20,
    fires: { [of('bearward_unexpected_errors_total')]: '0x10 1x20' },
    quiet: { [of('bearward_unexpected_errors_total')]: '7x40' },
  },
  {
    alert: 'BearwardReloadFailed',
    atMinutes: 10,
    fires: { [of('bearward_last_reload_successful')]: '0x20' },
    quiet: { [of('bearward_last_reload_successful')]: '0 0 0 1x20' },
  },
  {
    alert: 'BearwardUpstreamExposed',
    atMinutes: 10,
    fires: { [of('bearward_upstream_exposed')]: '1x20' },
    quiet: { [of('bearward_upstream_exposed')]: '0x20' },
  },
  {
    alert: 'BearwardKeysMissing',
    atMinutes: 5,
    fires: { [keys('expired')]: '1x20', [keys('fresh')]: '0x20' },
    quiet: { [keys('empty')]: '1 0x20', [keys('stale')]: '0 1x20' },
  },
  {
    alert: 'BearwardKeysStale',
    atMinutes: 20,
    fires: { [keys('stale')]: '1x40' },
    quiet: { [keys('stale')]: '1x10 0x20', [keys('fresh')]: '0x10 1x20' },
  },
  {
    alert: 'BearwardProviderFailing',
    atMinutes: 30,
    fires: { [fetches('failure')]: '0+1x40', [fetches('success')]: '5x40' },
    quiet: { [fetches('failure')]: '0+1x40', [fetches('success')]: '0+1x40' },
  },
  {
    alert: 'BearwardKeysUnavailable',
    atMinutes: 15,
    fires: { [requests('keys_unavailable', 5)]: '0+6x40' },
    quiet: { [requests('keys_unavailable', 5)]: '9x40', [requests('ok', 2)]: STEADY },
  },
  {
    alert: 'BearwardRefusalsJumped',
    atMinutes: 200,
    // A code that was hardly there, after three hours.
    fires: { [requests('ok', 2)]: STEADY, [requests('audience_mismatch', 4)]: '0x180 0+12x100' },
    // As many as ever.
    quiet: { [requests('ok', 2)]: STEADY, [requests('token_expired', 4)]: '0+12x400' },
  },
  {
    alert: 'BearwardMostRequestsRefused',
    atMinutes: 30,
    fires: { [requests('ok', 2)]: STEADY, [requests('issuer_unknown', 4)]: '0+90x60' },
    // The backend's own refusals count as "ok".
    quiet: { [requests('ok', 2)]: STEADY, [requests('ok', 4)]: '0+90x60', [requests('token_expired', 4)]: '0+6x60' },
  },
  {
    alert: 'BearwardUpstreamErrors',
    atMinutes: 15,
    fires: { [requests('ok', 2)]: STEADY, [requests('upstream_timeout', 5)]: '0+6x60' },
    quiet: { [requests('ok', 2)]: STEADY, [requests('ok', 5)]: STEADY, [requests('upstream_reset', 5)]: '0+1x60' },
  },
  {
    alert: 'BearwardOverloaded',
    atMinutes: 15,
    fires: { [of('bearward_connections_dropped_total')]: '0+5x60' },
    quiet: { [of('bearward_connections_dropped_total')]: '5x60', [requests('ok', 2)]: STEADY },
  },
  {
    alert: 'BearwardEventLoopSlow',
    atMinutes: 20,
    fires: { [of('nodejs_eventloop_lag_p99_seconds')]: '0.4x40', [INFO]: '1x40' },
    quiet: { [of('nodejs_eventloop_lag_p99_seconds')]: '0.1x40', [INFO]: '1x40' },
  },
  {
    alert: 'BearwardDecisionSlow',
    atMinutes: 30,
    fires: { [decisions('0.01')]: '0+1x60', [decisions('0.1')]: STEADY, [decisions('+Inf')]: STEADY },
    quiet: { [decisions('0.01')]: STEADY, [decisions('0.1')]: STEADY, [decisions('+Inf')]: STEADY },
  },
  {
    alert: 'BearwardLogLinesDropped',
    atMinutes: 20,
    fires: { [of('bearward_log_lines_dropped_total')]: '0x10 400x20' },
    quiet: { [of('bearward_log_lines_dropped_total')]: '400x40' },
  },
  {
    alert: 'BearwardClientRefused',
    atMinutes: 15,
    fires: { [exchanges('client_refused_by_issuer')]: '0+1x40' },
    quiet: { [exchanges('refused_by_issuer')]: '0+1x40', [exchanges('ok')]: STEADY },
  },
  {
    alert: 'BearwardHelperFailing',
    atMinutes: 25,
    fires: { [exchanges('ok')]: STEADY, [exchanges('issuer_timeout')]: '0+10x60' },
    quiet: {
      [exchanges('ok')]: STEADY,
      [exchanges('issuer_timeout')]: '0+2x60',
      [exchanges('refused_by_issuer')]: STEADY,
    },
  },
  {
    alert: 'BearwardTokensRevoked',
    atMinutes: 30,
    fires: { [exchanges('ok')]: STEADY, [exchanges('refused_by_issuer')]: '0+40x60' },
    quiet: { [exchanges('ok')]: STEADY, [exchanges('refused_by_issuer')]: '0+4x60' },
  },
  {
    alert: 'BearwardTokensNotValidated',
    atMinutes: 20,
    // The first one, with which the series begins.
    fires: { [validations('valid')]: STEADY, [validations('refused')]: '_x15 1x40' },
    // One long ago.
    quiet: {
      [validations('valid')]: STEADY,
      [validations('refused')]: '1x60',
      [validations('keys_unavailable')]: '0x60',
    },
  },
  {
    alert: 'BearwardIssuerLeftAlone',
    atMinutes: 25,
    // Tried from time to time, in vain.
    fires: {
      [breaker('open')]: '1 1 0 1 1 0 1 1 0 1x40',
      [breaker('half_open')]: '0 0 1 0 0 1 0 0 1 0x40',
      [exchanges('issuer_unavailable')]: STEADY,
    },
    // Nobody has asked for anything since.
    quiet: { [breaker('open')]: '1x60', [exchanges('issuer_unavailable')]: '0 5 9x60' },
  },
  {
    alert: 'BearwardStoreUnavailable',
    atMinutes: 10,
    fires: { [store('unavailable')]: '0 1x40', [store('ready')]: '1 0x40' },
    quiet: { [store('unavailable')]: '0 1 0x40', [store('ready')]: '1 0 1x40' },
  },
  {
    alert: 'BearwardSealsRefused',
    atMinutes: 25,
    fires: { [seals('open')]: STEADY, [seals('refuse')]: '0+20x60' },
    quiet: { [seals('open')]: STEADY, [seals('refuse')]: '0+2x60' },
  },
]

/** The whole as a test file of promtool. */
export function toPromtoolTests(ruleFile: string) {
  const group = (name: string, series: AlertCase['fires'], atMinutes: number, expected: object[]) => ({
    name,
    interval: '1m',
    input_series: Object.entries(series).map(([labels, values]) => ({ series: labels, values })),
    promql_expr_test: [
      {
        expr: `count by (alertname) (ALERTS{alertname="${name.split(' ')[0] as string}",alertstate="firing"})`,
        eval_time: `${atMinutes}m`,
        exp_samples: expected,
      },
    ],
  })
  return {
    rule_files: [ruleFile],
    evaluation_interval: '1m',
    tests: ALERT_CASES.flatMap(({ alert, atMinutes, fires, quiet }) => [
      group(`${alert} fires`, fires, atMinutes, [{ labels: `{alertname="${alert}"}`, value: 1 }]),
      group(`${alert} is quiet`, quiet, atMinutes, []),
    ]),
  }
}
