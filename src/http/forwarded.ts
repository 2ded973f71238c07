import { BlockList, isIP, isIPv6 } from 'node:net'
import { findField, joinField, type FieldList } from './headers.ts'

/**
 * Compiles a list of addresses and CIDR ranges into a test of a peer's address.
 *
 * @param ranges - such as `10.0.0.0/8`, `fd00::/8` or `10.1.2.3`; an empty list trusts nobody
 * @throws TypeError when an entry is not an address or a range
 */
export function createTrust(ranges: readonly string[]): (address: string) => boolean {
  if (ranges.length === 0) return () => false
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    if (isIP(address) === 0) throw new TypeError(`"${range}" is not an address or a CIDR range`)
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return (address) => list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

/** An IPv4 address that arrived on a dual-stack socket, without its `::ffff:` prefix. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

export interface Peer {
  /** Address of the TCP neighbour, from {@link plainAddress}. */
  readonly address: string
  /** Whether its forwarding fields are believed. */
  readonly trusted: boolean
  /** How the neighbour reached us. */
  readonly scheme: 'http' | 'https'
}

/**
 * Adds the forwarding fields for the upstream, rebuilt from what is known of this connection. Only what a trusted peer sent
 * is continued (`X-Forwarded-For` appended, the others kept); from anybody else nothing is believed.
 *
 * @param headers - flat list to add to; holds none of the names of `REBUILT_FORWARDING`
 * @param fields - all fields of the request as received
 */
export function addForwardedFields(headers: string[], fields: FieldList, peer: Peer): void {
  const host = findField(fields, 'host').value ?? ''
  if (!peer.trusted) {
    headers.push('x-forwarded-for', peer.address, 'x-forwarded-proto', peer.scheme, 'x-forwarded-host', host)
    return
  }
  const before = joinField(fields, 'x-forwarded-for')
  headers.push(
    'x-forwarded-for',
    before === undefined ? peer.address : `${before}, ${peer.address}`,
    'x-forwarded-proto',
    joinField(fields, 'x-forwarded-proto') ?? peer.scheme,
    'x-forwarded-host',
    joinField(fields, 'x-forwarded-host') ?? host,
  )
}
