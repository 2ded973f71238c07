import { existsSync, readFileSync } from 'node:fs'
import type { Fault } from '../config/check.ts'
import { FILES } from '../config/complete.ts'
import { renderEffective } from '../config/effective.ts'
import { inOrder, loadConfigWithPlaces, type LoadedConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { readSecret } from '../config/secrets.ts'
import { configWarnings } from '../config/warnings.ts'
import { ConfigError, type Problem } from '../errors.ts'

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

/** Every setting that names a file, with the file. */
function filesOf({ issuers, upstream, listen }: Config): { path: Fault['path']; file: string }[] {
  const named = <T extends object>(group: T | undefined, keys: readonly (keyof T & string)[], at: Fault['path']) =>
    keys.flatMap((key) => {
      const file = group?.[key]
      return typeof file === 'string' ? [{ path: [...at, key], file }] : []
    })
  return [
    ...issuers.flatMap((issuer, i) => named(issuer, FILES.issuers, ['issuers', i])),
    ...named(upstream, FILES.upstream, ['upstream']),
    ...named(listen.tls, FILES.tls, ['listen', 'tls']),
  ]
}

/** Mounted by Kubernetes alone, and so missing wherever else a configuration is checked. */
const IN_POD = '/var/run/secrets/kubernetes.io/serviceaccount/'

function isElsewhere({ file }: { readonly file: string }): boolean {
  return file.startsWith(IN_POD) && !existsSync(IN_POD)
}

function checkFiles({ config, locate }: LoadedConfig, env: CheckConfigIo['env']): void {
  const problems: Problem[] = []
  for (const { path, file } of filesOf(config).filter((one) => !isElsewhere(one))) {
    const reason = whyUnreadable(file)
    const problem = `names a file that cannot be read: ${file} (${reason}).`
    if (reason !== undefined) problems.push(locate({ path, problem }))
  }
  for (const [name, { client_secret: secret }] of Object.entries(config.helper.clients)) {
    try {
      if (secret !== undefined) readSecret(secret, env)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const path = ['helper', 'clients', name, 'client_secret']
      problems.push(...error.problems.map(({ source, problem }) => locate({ path, problem: `${source}: ${problem}` })))
    }
  }
  if (problems.length > 0) throw new ConfigError(inOrder(problems))
}

function whyUnreadable(file: string): string | undefined {
  try {
    return readFileSync(file).length === 0 ? 'empty' : undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
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
