import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { NAME } from './names.ts'
import { nearest } from './nearest.ts'
import type { Config } from './schema.ts'

type CallerConfig = Config['helper']['callers'][string]

/** Taken by requests of whom nothing is asked. */
const RESERVED = 'local'

/** Callers of the helper alone, and against clients and issuers. */
export function checkCallers({ helper, issuers }: Pick<Config, 'helper' | 'issuers'>): Fault[] {
  const clients = Object.keys(helper.clients)
  return Object.entries(helper.callers).flatMap(([name, caller]) => {
    const at: Path = ['helper', 'callers', name]
    return [
      ...checkName(name, at),
      ...checkProof(caller, at),
      ...(caller.clients ?? []).flatMap((client, i) => unknownName(client, clients, [...at, 'clients', i], 'a client')),
      ...checkServiceAccounts(caller.service_accounts, issuers, [...at, 'service_accounts']),
    ]
  })
}

function checkName(name: string, path: Path): Fault[] {
  if (name === RESERVED) return [{ path, problem: `cannot be named "${RESERVED}": requests without a caller are.` }]
  return NAME.test(name) ? [] : [{ path, problem: 'must be named in lower case.' }]
}

function checkProof({ shared_secret: secret, service_accounts: accounts }: CallerConfig, path: Path): Fault[] {
  if ((secret === undefined) !== (accounts === undefined)) return []
  return [{ path, problem: 'needs shared_secret or service_accounts, and not both.' }]
}

function checkServiceAccounts(
  accounts: CallerConfig['service_accounts'],
  issuers: Config['issuers'],
  at: Path,
): Fault[] {
  if (accounts === undefined) return []
  const names = issuers.map(({ name }) => name)
  if (accounts.issuer === undefined && names.length > 1) {
    return [{ path: [...at, 'issuer'], problem: `is missing: there are several, ${names.join(', ')}.` }]
  }
  const issuer = issuers.find(({ name }) => name === (accounts.issuer ?? names[0]))
  if (issuer === undefined) return unknownName(accounts.issuer ?? '', names, [...at, 'issuer'], 'an issuer')
  if (!issuer.audience.values.includes(accounts.audience)) return []
  const problem = 'is an audience of the API, too: a backend that gets such a token could show it here.'
  return [{ path: [...at, 'audience'], problem }]
}

function unknownName(name: string, known: readonly string[], path: Path, what: string): Fault[] {
  if (known.includes(name)) return []
  const near = nearest(name, known)
  const hint = near === undefined ? `Known: ${known.join(', ')}.` : `Did you mean "${near}"?`
  return [{ path, problem: `"${name}" is not the name of ${what}.`, hint }]
}
