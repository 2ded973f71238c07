import { BlockList, isIP, isIPv6 } from 'node:net'
import type { Fault } from './check.ts'
import { isLoopback, reaches } from './hosts.ts'
import type { Config } from './schema.ts'
import { readUpstreamUrl } from './upstream-url.ts'

const LISTENERS = ['proxy', 'ops', 'helper'] as const

/** A request that comes back as another request never ends; and probes and grants are not for callers. */
export function checkLoop({ upstream, listen }: Addresses & Pick<Config, 'upstream'>): Fault[] {
  const { path, host, port } = readUpstreamUrl(upstream.url)
  if (path !== undefined) return []
  const own = LISTENERS.find((name) => {
    const bound = listen[name]
    return bound !== undefined && 'port' in bound && bound.port === port && reaches(host, bound.host)
  })
  if (own === undefined) return []
  return [{ path: ['upstream', 'url'], problem: `is the address of listen.${own}: bearward would be its own backend.` }]
}

/** The addresses that could be parsed. */
type Addresses = { readonly listen: Partial<Config['listen']> }

/** Two listeners with one port. */
export function checkPorts({ listen, helper }: Addresses & Pick<Config, 'helper'>): Fault[] {
  const seen = new Map<number, string>()
  return LISTENERS.flatMap((name): Fault[] => {
    const bound = listen[name]
    const port = bound !== undefined && 'port' in bound ? bound.port : 0
    if (port === 0 || (name === 'helper' && Object.keys(helper.clients).length === 0)) return []
    const other = seen.get(port)
    seen.set(port, name)
    return other === undefined
      ? []
      : [{ path: ['listen', name], problem: `has the port of listen.${other}; each needs its own.` }]
  })
}

/** A helper that others can reach. */
export function checkHelperAddress({ listen, helper }: Pick<Config, 'listen' | 'helper'>): Fault[] {
  if ('path' in listen.helper || isLoopback(listen.helper.host) || listen.insecure_helper_address) return []
  if (Object.keys(helper.callers).length > 0) return []
  const problem = 'is not loopback: whoever reaches the helper can spend grants as the configured clients.'
  const hint = 'Use 127.0.0.1 or a Unix socket, or say under helper.callers who may.'
  return [{ path: ['listen', 'helper'], problem, hint }]
}

/** Proxies that are none, or everybody. */
export function checkTrustedProxies({ listen }: Pick<Config, 'listen'>): Fault[] {
  return listen.trusted_proxies.flatMap((range, i) => {
    const problem = rangeProblem(range)
    return problem === undefined ? [] : [{ path: ['listen', 'trusted_proxies', i], problem }]
  })
}

function rangeProblem(range: string): string | undefined {
  const [address = '', bits, ...rest] = range.split('/')
  if (address.includes('%')) return 'must not name a zone ("%").'
  if (isIP(address) === 0 || rest.length > 0) return 'must be an address or a CIDR range, such as 10.0.0.0/8.'
  if (bits === undefined) return undefined
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  if (!/^\d{1,3}$/.test(bits) || Number(bits) > (family === 'ipv6' ? 128 : 32)) return 'has no such prefix length.'
  const list = new BlockList()
  list.addSubnet(address, Number(bits), family)
  return holdsEverybody(list) ? 'would trust everybody, and so let every caller choose its own address.' : undefined
}

/** All of IPv4 at least: an IPv6 range such as ::/1 or ::ffff:0:0/96 holds that, too. */
function holdsEverybody(range: BlockList): boolean {
  return range.check('0.0.0.0', 'ipv4') && range.check('255.255.255.255', 'ipv4')
}
