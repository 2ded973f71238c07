import { isDeepStrictEqual } from 'node:util'
import type { Fault } from './check.ts'
import type { Config } from './schema.ts'

/** Settings of `listen` that are not about the sockets themselves. */
const LIVE_LISTEN = ['trusted_proxies', 'insecure_helper_address']
/** Limits that a listening socket was opened with. */
const FIXED_LIMITS = [
  'header_bytes',
  'headers_timeout',
  'keep_alive_timeout',
  'send_timeout',
  'connections',
  'concurrent_streams',
] as const

/** The settings that differ and cannot change while the process runs. */
export function fixedFaults(before: Config, after: Config): Fault[] {
  // The helper's listener is opened with the first client.
  const free = Object.keys(before.helper.clients).length === 0 ? [...LIVE_LISTEN, 'helper'] : LIVE_LISTEN
  const listen = Object.keys({ ...before.listen, ...after.listen }).filter((name) => !free.includes(name))
  return [
    ...compare('listen', listen, before.listen, after.listen),
    ...compare('limits', FIXED_LIMITS, before.limits, after.limits),
  ]
}

function compare(group: string, names: readonly string[], before: object, after: object): Fault[] {
  return names
    .filter((name) => !isDeepStrictEqual(Reflect.get(before, name), Reflect.get(after, name)))
    .map((name) => ({
      path: [group, name],
      problem: 'cannot change while bearward runs.',
      hint: 'Restart it, or leave the setting as it was.',
    }))
}
