import { readFileSync } from 'node:fs'
import { connect, isIP, Socket, type OnReadOpts } from 'node:net'
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { holdsCertificates } from '../util/certificates.ts'

/** How connections to the upstream are opened. */
export interface Dial {
  /** Opens one. Errors come as events of the socket, those of files that cannot be read included. */
  open(onread?: OnReadOpts): Socket
  /** The event by which a connection stands. */
  readonly ready: 'connect' | 'secureConnect'
  readonly scheme: 'http' | 'https'
}

export interface DialTls {
  /** The name that the certificate must have, sent as SNI as well. */
  readonly serverName: string
  /** Files in PEM: authorities to trust instead of the system's, and the certificate to show, with its key. */
  readonly caFile: string | undefined
  readonly certificateFile: string | undefined
  readonly keyFile: string | undefined
  /** The protocol to agree on by ALPN. */
  readonly protocol: 'http/1.1' | 'h2'
}

export type DialAddress = { readonly host: string; readonly port: number } | { readonly path: string }

/** After so much silence the system asks whether the peer is still there: streams of events and WebSockets have no other limit. */
const KEEP_ALIVE_PROBE_MS = 60_000

/** Creates the way to an upstream: TCP, a Unix socket, or TLS over TCP, always with the certificate checked. */
export function createDial(address: DialAddress, tls: DialTls | undefined): Dial {
  if (tls === undefined) {
    return {
      ready: 'connect',
      scheme: 'http',
      open: (onread) =>
        connect({ ...address, noDelay: true, ...(onread && { onread }) }).setKeepAlive(true, KEEP_ALIVE_PROBE_MS),
    }
  }
  const contexts = createContexts(tls)
  return {
    ready: 'secureConnect',
    scheme: 'https',
    open(onread) {
      try {
        const secureContext = contexts()
        // An address cannot be sent as a name (RFC 6066 §3), and is compared all the same.
        const names = {
          ALPNProtocols: [tls.protocol],
          ...(isIP(tls.serverName) === 0 && { servername: tls.serverName }),
        }
        return connectTls({ ...address, ...names, secureContext, ...(onread && { onread }) })
          .setNoDelay(true)
          .setKeepAlive(true, KEEP_ALIVE_PROBE_MS)
      } catch (error) {
        // As any other reason for which the upstream cannot be reached.
        return new FailedSocket(error as Error)
      }
    },
  }
}

/**
 * Reads the files anew for every connection, for they are replaced when they are about to expire. While what is in them
 * cannot be used, what was in them before is.
 */
function createContexts({ caFile, certificateFile, keyFile }: DialTls): () => SecureContext {
  let known: { readonly id: string; readonly context: SecureContext } | undefined
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file, 'utf8'))
  const renew = () => {
    const [ca, cert, key] = [read(caFile), read(certificateFile), read(keyFile)]
    const id = JSON.stringify([ca, cert, key])
    if (known?.id === id) return known
    if (ca !== undefined && !holdsCertificates(ca)) throw new Error('ca_file holds no whole certificates')
    const options = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }), minVersion: 'TLSv1.2' } as const
    return { id, context: createSecureContext(options) }
  }
  return () => {
    try {
      known = renew()
    } catch (error) {
      if (known === undefined) throw error
    }
    return known.context
  }
}

/** A connection that fails before it begins. */
class FailedSocket extends Socket {
  constructor(error: Error) {
    super()
    process.nextTick(() => this.destroy(error))
  }
}
