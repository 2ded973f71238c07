import { isLoopback } from './hosts.ts'
import type { Config } from './schema.ts'

/** What works but deserves a second look: every `insecure_` setting in use, and an upstream that others can reach. */
export function configWarnings(config: Config): string[] {
  const { hostname, protocol } = new URL(config.upstream.url)
  const warnings = findInsecure(config, '')
  if (hostname === 'localhost') {
    warnings.push('upstream is "localhost", which may mean ::1 first: write 127.0.0.1.')
  } else if (protocol !== 'unix:' && !isLoopback(hostname)) {
    warnings.push('upstream is not loopback: whoever reaches it directly gets around bearward.')
  }
  const { helper } = config.listen
  if ('host' in helper && !isLoopback(helper.host) && Object.keys(config.helper.clients).length > 0) {
    warnings.push('listen.helper is not loopback: tokens and secrets of callers travel in the clear.')
  }
  return warnings
}

function findInsecure(value: unknown, path: string): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    const place = path === '' ? key : /^\d+$/.test(key) ? `${path}[${key}]` : `${path}.${key}`
    if (key.startsWith('insecure_') && member === true) return [`${place} is true: a protection is off.`]
    return findInsecure(member, place)
  })
}
