import type { IncomingMessage } from 'node:http'
import { GrantError } from '../errors.ts'

/** Who asks for tokens. */
export interface Caller {
  /** Name in logs; `local` where nobody has to say who it is. */
  readonly name: string
}

const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i

/**
 * Shuts out browsers: no page may make its reader's machine spend grants. They all send `Origin` with a POST, or at least
 * `Sec-Fetch-Site` (other programs send some of the Sec-Fetch fields, too, but not this one); and a page that pointed its
 * own name at this machine shows it in `Host`.
 *
 * @throws GrantError `origin_refused`
 */
export function refuseBrowsers({ headers }: IncomingMessage, loopbackOnly: boolean): void {
  const isPage = headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
  if (!isPage && (!loopbackOnly || LOOPBACK_HOST.test(headers.host ?? ''))) return
  throw new GrantError('origin_refused', {
    status: 403,
    error: 'access_denied',
    description: 'Browsers are not served here.',
  })
}
