import { readFileSync } from 'node:fs'
import type { TlsOptions } from 'node:tls'
import { holdsCertificates } from '../util/certificates.ts'

/** Files in PEM. */
export interface TlsFiles {
  /** The certificate with its chain, and its private key. */
  readonly certificateFile: string
  readonly keyFile: string
  /** Authorities of which every caller must show a certificate; absent when none is asked for. */
  readonly clientCaFile: string | undefined
}

export interface TlsSource {
  /** What the server begins with. */
  readonly options: TlsOptions
  /** Calls `replace` when the files have changed and are good; until `stop()`. */
  watch(replace: (options: TlsOptions) => void): void
  stop(): void
}

/** How often the files are looked at: a kubelet replaces them within a minute or so, and the old ones are good meanwhile. */
const CHECK_INTERVAL_MS = 5_000

/**
 * Reads the files of a TLS listener, and again when they change. Files that cannot be used then are reported once, and the
 * ones before go on being used.
 *
 * @param onRotated - called with `undefined` for good files, or with why they are not
 * @throws Error with a sentence when they cannot be used to begin with
 */
export function createTlsSource(files: TlsFiles, onRotated: (fault: string | undefined) => void): TlsSource {
  let current = readFiles(files)
  let timer: NodeJS.Timeout | undefined
  let seen = current.id
  return {
    options: current.options,
    watch(replace) {
      timer = setInterval(() => {
        const next = tryRead(files)
        const id = typeof next === 'string' ? next : next.id
        if (id === seen) return
        seen = id
        if (typeof next === 'string') return onRotated(next)
        if (next.id === current.id) return
        try {
          replace(next.options)
          current = next
          onRotated(undefined)
        } catch (error) {
          onRotated((error as { code?: string }).code ?? 'unusable')
        }
      }, CHECK_INTERVAL_MS).unref()
    },
    stop: () => clearInterval(timer),
  }
}

interface Read {
  readonly id: string
  readonly options: TlsOptions
}

function readFiles({ certificateFile, keyFile, clientCaFile }: TlsFiles): Read {
  const cert = readFileSync(certificateFile, 'utf8')
  const key = readFileSync(keyFile, 'utf8')
  const ca = clientCaFile === undefined ? undefined : readFileSync(clientCaFile, 'utf8')
  if (ca !== undefined && !holdsCertificates(ca)) {
    throw Object.assign(new Error('no whole certificates'), { code: 'no whole certificates', path: clientCaFile })
  }
  const shared = { cert, key, minVersion: 'TLSv1.2', ALPNProtocols: ['h2', 'http/1.1'] } as const
  const options = ca === undefined ? shared : { ...shared, ca, requestCert: true, rejectUnauthorized: true }
  return { id: JSON.stringify([cert, key, ca]), options: { ...options, ALPNProtocols: [...shared.ALPNProtocols] } }
}

function tryRead(files: TlsFiles): Read | string {
  try {
    return readFiles(files)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unreadable'
  }
}
