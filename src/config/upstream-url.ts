/** What the URL of an upstream says. */
export interface UpstreamUrl {
  /** The path of a Unix socket; absent for an address. */
  readonly path: string | undefined
  /** Without brackets; empty for a socket. */
  readonly host: string
  readonly port: number
  readonly isTls: boolean
  readonly isHttp2: boolean
}

/** Reads the URL of an upstream: `http`, `https`, `h2c` (HTTP/2 in the clear), `h2` (HTTP/2 over TLS) or `unix:/PATH`. */
export function readUpstreamUrl(url: string): UpstreamUrl {
  const { protocol, hostname, port, pathname } = new URL(url)
  const isTls = protocol === 'https:' || protocol === 'h2:'
  return {
    path: protocol === 'unix:' ? decodeURIComponent(pathname) : undefined,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (isTls ? 443 : 80) : Number(port),
    isTls,
    isHttp2: protocol === 'h2c:' || protocol === 'h2:',
  }
}
