/** Whether a host name or address means this machine. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(host)
}

/** Whether a URL would be fetched over a network without TLS. */
export function isInsecure(url: string): boolean {
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname)
}

/** Whether a text is a URL that metadata can be looked for below. */
export function isHttpUrl(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text)
}

const EVERY_ADDRESS = ['0.0.0.0', '::']

/**
 * Whether a connection to a host arrives at a socket that is bound to an address of this machine.
 *
 * @param host - of a URL, an IPv6 address without brackets
 */
export function reaches(host: string, bound: string): boolean {
  if (host === bound) return true
  // To connect to "every address" means this machine.
  const isHere = isLoopback(host) || EVERY_ADDRESS.includes(host)
  if (bound === '0.0.0.0') return isHere && !host.includes(':')
  if (bound === '::') return isHere
  return isLoopback(bound) && isHere && (host === 'localhost' || bound === 'localhost' || !isLoopback(host))
}
