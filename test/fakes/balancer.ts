import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** A backend of the balancer: where its traffic goes, and the listener that tells whether it is ready. */
export interface Target {
  readonly port: number
  /** The origin of `/readyz`. */
  readonly ops: string
}

/** Spreads connections, not requests, over whatever is ready: it knows nothing of HTTP. */
export interface Balancer {
  readonly origin: string
  /** Connections that found no backend, or could not reach the one they were given. */
  failed(): number
  /** Waits until it sends connections there. */
  add(target: Target): Promise<void>
  /** Forgets one that is gone. Connections are left alone. */
  remove(target: Target): void
  stop(): void
}

/** How often it asks. One answer other than 200, or none, is enough to leave a backend out. */
const CHECK_MS = 50

/** Starts one on 127.0.0.1 that takes its targets in turn. */
export async function startBalancer(): Promise<Balancer> {
  const ready = new Map<Target, boolean>()
  const open = new Set<Socket>()
  let failed = 0
  let turn = 0

  const check = async (target: Target) => {
    const ok = await fetch(`${target.ops}/readyz`).then(
      ({ status }) => status === 200,
      () => false,
    )
    if (ready.has(target)) ready.set(target, ok)
  }
  const timer = setInterval(() => void Promise.all([...ready.keys()].map(check)), CHECK_MS)

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (caller) => {
    const usable = [...ready].filter(([, isReady]) => isReady)
    const [target] = usable[(turn += 1) % usable.length] ?? []
    if (target === undefined) {
      failed += 1
      caller.destroy()
      return
    }
    const backend = connect({ port: target.port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    let connected = false
    backend.on('connect', () => (connected = true))
    backend.on('error', () => {
      if (!connected) failed += 1
    })
    join(caller, backend)
    for (const socket of [caller, backend]) {
      open.add(socket)
      socket.on('close', () => open.delete(socket))
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    failed: () => failed,
    async add(target) {
      ready.set(target, false)
      while (ready.get(target) === false) await new Promise((resolve) => setTimeout(resolve, CHECK_MS / 5))
    },
    remove: (target) => void ready.delete(target),
    stop() {
      clearInterval(timer)
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}

/** What one side says the other hears; what breaks on one side breaks on the other. */
function join(one: Socket, other: Socket): void {
  one.pipe(other)
  other.pipe(one)
  one.on('error', () => other.resetAndDestroy())
  other.on('error', () => one.resetAndDestroy())
  one.on('close', () => other.destroy())
  other.on('close', () => one.destroySoon())
}
