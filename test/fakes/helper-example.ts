import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { startSidecar, type FakeSidecar } from './sidecar.ts'

export const EXAMPLES = join(import.meta.dirname, '../../config/examples')

interface Application {
  readonly clientId: string
  readonly secret?: string
}

export interface HelperExample {
  /** The example of the configuration, without its ending. */
  readonly name: 'auth0-helper' | 'workos-helper'
  readonly issuer: string
  readonly upstream: string
  readonly audience?: readonly string[]
  /** By the names of the example. */
  readonly clients: Readonly<Record<'web' | 'native' | 'worker', Application>>
  /** Settings of the helper beside those of the example. */
  readonly helper?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
}

interface ExampleConfig {
  readonly issuers: readonly Record<string, unknown>[]
  readonly helper: { readonly clients: Readonly<Record<string, Record<string, unknown>>> }
}

/** Starts a sidecar from an example as it is, with nothing changed but who the issuer and the applications are. */
export async function startHelperExample(example: HelperExample): Promise<FakeSidecar> {
  const config = parse(readFileSync(join(EXAMPLES, `${example.name}.yaml`), 'utf8')) as ExampleConfig
  const folder = mkdtempSync(join(tmpdir(), 'bearward-'))
  const clients = Object.entries(config.helper.clients).map(([name, settings]) => {
    const { clientId, secret } = example.clients[name as keyof HelperExample['clients']]
    if (secret === undefined) return [name, { ...settings, client_id: clientId }]
    writeFileSync(join(folder, name), secret)
    return [name, { ...settings, client_id: clientId, client_secret: { file: join(folder, name) } }]
  })
  const issuers = config.issuers.map((issuer) => ({
    ...issuer,
    issuer: example.issuer,
    audience: example.audience ?? issuer['audience'],
  }))
  const sidecar = await startSidecar({
    config: {
      ...config,
      issuers,
      upstream: example.upstream,
      helper: { ...config.helper, ...example.helper, clients: Object.fromEntries(clients) as object },
    },
    env: example.env ?? {},
  })
  await sidecar.ready()
  const { stop } = sidecar
  return Object.assign(sidecar, {
    async stop() {
      await stop()
      rmSync(folder, { recursive: true, force: true })
    },
  })
}
