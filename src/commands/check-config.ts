import { renderEffective } from '../config/effective.ts'
import { checkFiles, filesOf, isElsewhere } from '../config/files.ts'
import { loadConfigWithPlaces } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { configWarnings } from '../config/warnings.ts'
import { ConfigError } from '../errors.ts'

export interface CheckConfigIo {
  readonly stdout: (text: string) => void
  readonly stderr: (text: string) => void
  readonly env: Readonly<Record<string, string | undefined>>
}

/**
 * Checks a configuration and the files it names, without opening a port or a connection.
 *
 * @param argv - what follows the command's name: at most one file, and `--effective`
 * @returns the exit code: 0 valid, 64 wrong usage, 78 problems found
 */
export function checkConfig(argv: readonly string[], { stdout, stderr, env }: CheckConfigIo): number {
  const effective = argv.includes('--effective')
  const files = argv.filter((argument) => argument !== '--effective')
  const flag = files.find((argument) => argument.startsWith('-'))
  if (flag !== undefined || files.length > 1) {
    stderr(
      `${flag === undefined ? 'Only one file can be checked' : `There is no option "${flag}"`}. See "bearward check-config --help".\n`,
    )
    return 64
  }
  const [file] = files
  try {
    const loaded = loadConfigWithPlaces({ ...(file === undefined ? {} : { file }), env })
    const { config } = loaded
    if (effective) {
      stdout(renderEffective(config))
      return 0
    }
    checkFiles(loaded, env)
    for (const { file } of filesOf(config).filter(isElsewhere))
      stdout(`warning: ${file} is not checked: it is in a pod only.\n`)
    for (const warning of configWarnings(config)) stdout(`warning: ${warning}\n`)
    stdout(`${file ?? 'The environment'} is valid: ${summarize(config)}.\n`)
    return 0
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const count = error.problems.length
    stderr(`${error.message}\n${count} ${count === 1 ? 'problem' : 'problems'} found.\n`)
    return 78
  }
}

function summarize({ issuers, rules, upstream, helper }: Config): string {
  const several = (count: number, word: string) => `${count} ${word}${count === 1 ? '' : 's'}`
  const clients = Object.keys(helper.clients).length
  return [
    several(issuers.length, 'issuer'),
    several(rules.length, 'rule'),
    ...(clients === 0 ? [] : [several(clients, 'helper client')]),
    `upstream ${upstream.url}`,
  ].join(', ')
}
