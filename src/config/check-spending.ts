import type { Fault } from './check.ts'
import type { Path } from './document.ts'
import { isLoopback } from './hosts.ts'
import type { Config } from './schema.ts'

type Helper = Pick<Config, 'helper'>

const REDIS: Path = ['helper', 'store', 'redis']

/** The Redis of the helper: TLS where it is needed, and settings that belong together. */
export function checkStore({ helper: { store } }: Helper): Fault[] {
  if (store === undefined) return []
  const { url, insecure_plaintext: plaintext, certificate_file: certificate, key_file: key } = store.redis
  const { protocol, hostname, port } = new URL(url)
  const faults: Fault[] = []
  const isTls = protocol === 'rediss:'
  if (!isTls && !isLoopback(hostname) && !plaintext) {
    const problem = 'is not rediss: whoever is in between could read the password and forge or delete leases.'
    faults.push({ path: [...REDIS, 'url'], problem, hint: 'Use rediss, or set insecure_plaintext: true if you must.' })
  }
  if (port === '0') faults.push({ path: [...REDIS, 'url'], problem: 'has the port 0, on which nothing listens.' })
  for (const name of ['ca_file', 'server_name', 'certificate_file', 'key_file'] as const) {
    if (isTls || store.redis[name] === undefined) continue
    faults.push({ path: [...REDIS, name], problem: 'is for rediss alone.' })
  }
  if ((certificate === undefined) !== (key === undefined)) {
    faults.push({ path: REDIS, problem: 'needs both certificate_file and key_file, or neither.' })
  }
  if (store.redis.username !== undefined && store.redis.password === undefined) {
    faults.push({ path: [...REDIS, 'username'], problem: 'is not used without a password.' })
  }
  return faults
}

/** Keys that are listed twice, and a binding to callers that nobody can tell apart. */
export function checkSealing({ helper: { sealing, callers } }: Helper): Fault[] {
  if (sealing === undefined) return []
  const files = sealing.key_files
  const faults: Fault[] = files.flatMap((file, i) =>
    files.indexOf(file) === i ? [] : [{ path: ['helper', 'sealing', 'key_files', i], problem: 'is listed before.' }],
  )
  if (sealing.bind_to_caller && Object.keys(callers).length === 0) {
    const path = ['helper', 'sealing', 'bind_to_caller']
    faults.push({ path, problem: 'means nothing without helper.callers: all callers are the same then.' })
  }
  return faults
}
