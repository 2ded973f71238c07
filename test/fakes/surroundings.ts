import { startAuthorizationServer, type AuthorizationServer } from './authorization-server.ts'
import { stopSidecars } from './sidecar.ts'
import { startUpstream, type FakeUpstream } from './upstream.ts'

/** What the tests of the token helper stand on. */
export interface Surroundings {
  readonly issuer: AuthorizationServer
  /** The backend behind the sidecar. */
  readonly upstream: FakeUpstream
}

const running = new Set<Surroundings>()

/** Starts an authorization server and a backend. */
export async function startSurroundings(): Promise<Surroundings> {
  const surroundings = { issuer: await startAuthorizationServer(), upstream: await startUpstream() }
  running.add(surroundings)
  return surroundings
}

/** Stops every sidecar, and then what they stood on. */
export async function stopSurroundings(): Promise<void> {
  await stopSidecars()
  await Promise.all([...running].flatMap(({ issuer, upstream }) => [issuer.stop(), upstream.stop()]))
  running.clear()
}

/** The configuration of a sidecar that stands on them, with this helper. */
export function toHelperConfig<H extends object>(issuer: AuthorizationServer, upstream: FakeUpstream, helper: H) {
  return {
    issuers: [{ name: 'main', issuer: issuer.issuer, audience: issuer.audience }],
    upstream: upstream.url,
    helper,
  }
}

/** How many requests the token endpoint of an issuer gets meanwhile. */
export async function countSpends({ requests }: AuthorizationServer, run: () => Promise<unknown>): Promise<number> {
  const before = requests.token
  await run()
  return requests.token - before
}
