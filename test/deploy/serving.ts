import { eventually, MAIN, startNode, type Command } from '../cli/command.ts'
import type { LogLine } from '../fakes/sidecar.ts'

/** The program, as it runs in a container. */
export interface Serving {
  readonly command: Command
  /** Origins of the listeners. */
  readonly proxy: string
  readonly ops: string
  readonly helper: string
  readonly proxyPort: number
  log(): LogLine[]
  /** How often a line with this message was written. */
  count(message: string): number
  /** Waits until a line with this message was written `times` times. */
  said(message: string, times?: number): Promise<LogLine>
  metric(line: string): Promise<number | undefined>
  status(): Promise<ServingStatus>
  ready(): Promise<void>
}

export interface ServingStatus {
  readonly ready: boolean
  readonly config: {
    readonly loaded_at: string
    readonly reload?: { readonly successful: boolean; readonly problems: readonly string[] }
  }
  readonly issuers: readonly { readonly name: string; readonly state: string; readonly keys: number }[]
}

/** Starts `bearward serve` and waits until it listens. */
export async function startServing(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Serving> {
  const command = startNode([MAIN, 'serve', ...argv], { env })
  const log = () =>
    command
      .stdout()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as LogLine)
  const linesOf = (message: string) => log().filter(({ msg }) => msg === message)
  const said = async (message: string, times = 1): Promise<LogLine> => {
    await command.until(() => linesOf(message).length >= times)
    return linesOf(message)[times - 1] as LogLine
  }
  const { proxy_port: proxyPort, ops_port: opsPort, helper_port: helperPort } = await said('started')
  const ops = `http://127.0.0.1:${Number(opsPort)}`
  return {
    command,
    proxy: `http://127.0.0.1:${Number(proxyPort)}`,
    ops,
    helper: `http://127.0.0.1:${Number(helperPort)}`,
    proxyPort: Number(proxyPort),
    log,
    count: (message) => linesOf(message).length,
    said,
    async metric(line) {
      const text = await (await fetch(`${ops}/metrics`)).text()
      const found = text.split('\n').find((candidate) => candidate.startsWith(`${line} `))
      return found === undefined ? undefined : Number(found.slice(line.length + 1))
    },
    status: async () => (await fetch(`${ops}/status`)).json() as Promise<ServingStatus>,
    ready: () => eventually(async () => (await fetch(`${ops}/readyz`)).status === 200),
  }
}
