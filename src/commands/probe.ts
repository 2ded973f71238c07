import { askOps, readOpsOptions, type OpsIo } from './ops-client.ts'

const PATHS: Readonly<Record<string, string>> = { live: '/livez', ready: '/readyz', startup: '/startupz' }

/**
 * Asks a running sidecar what a kubelet would ask: for HEALTHCHECK and for probes by command.
 *
 * @param argv - what follows the command's name: `live`, `ready` or `startup`, and where to ask
 * @returns the exit code: 0 yes, 1 no or no answer, 64 wrong usage, 78 the address cannot be told
 */
export async function probe(argv: readonly string[], io: OpsIo): Promise<number> {
  const options = readOpsOptions(argv, 'probe')
  if ('misuse' in options) {
    io.stderr(`${options.misuse}\n`)
    return 64
  }
  const [word = '', ...more] = options.words
  const path = Object.hasOwn(PATHS, word) ? PATHS[word] : undefined
  if (path === undefined || more.length > 0) {
    io.stderr(`Name one probe: ${Object.keys(PATHS).join(', ')}. See "bearward probe --help".\n`)
    return 64
  }
  return askOps(options, { method: 'GET', path }, io)
}
