import { DRAIN_FIELD, DRAIN_VALUE } from '../admin/handler.ts'
import { askOps, readOpsOptions, type OpsIo } from './ops-client.ts'

/**
 * Tells a running sidecar that its pod is about to end, for its preStop hook: it stops being ready and answers with
 * `Connection: close`, and goes on serving until it gets SIGTERM. Any number of times.
 *
 * @param argv - what follows the command's name: where to ask
 * @returns the exit code: 0 told, 1 no answer or refused, 64 wrong usage, 78 the address cannot be told
 */
export async function drain(argv: readonly string[], io: OpsIo): Promise<number> {
  const options = readOpsOptions(argv, 'drain')
  if ('misuse' in options || options.words.length > 0) {
    const misuse = 'misuse' in options ? options.misuse : `There is no argument "${options.words[0]}".`
    io.stderr(`${misuse}\n`)
    return 64
  }
  return askOps(options, { method: 'POST', path: '/drain', headers: { [DRAIN_FIELD]: DRAIN_VALUE } }, io)
}
