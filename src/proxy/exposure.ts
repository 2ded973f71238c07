import { connect } from 'node:net'
import type { Clock } from '../util/clock.ts'

export interface ExposureOptions {
  /** Addresses of this machine that others can reach. */
  readonly addresses: readonly string[]
  /** The port of the upstream. */
  readonly port: number
  readonly clock: Clock
  /** Called once, when the upstream answers on one of them. */
  readonly onFound: (address: string) => void
}

/** The upstream of a pod starts after this process, or restarts with other settings, so one look is not enough. */
const INTERVAL_MS = 30_000
const CONNECT_TIMEOUT_MS = 1_000

/**
 * Looks, now and every 30 s until it is so, whether the upstream accepts connections on an address that others can reach:
 * whoever does gets around the gate. Connects and closes, sends nothing.
 *
 * @returns a function that ends it
 */
export function watchExposure({ addresses, port, clock, onFound }: ExposureOptions): () => void {
  let ended = addresses.length === 0
  let callOff: (() => void) | undefined
  const look = async () => {
    for (const address of addresses) {
      if (ended || !(await accepts(address, port))) continue
      if (ended) return
      ended = true
      onFound(address)
    }
    if (!ended) callOff = clock.after(INTERVAL_MS, () => void look())
  }
  void look()
  return () => {
    ended = true
    callOff?.()
  }
}

function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: CONNECT_TIMEOUT_MS })
    const end = (accepted: boolean) => {
      socket.destroy()
      resolve(accepted)
    }
    socket.once('connect', () => end(true))
    socket.once('timeout', () => end(false))
    socket.once('error', () => end(false))
  })
}
