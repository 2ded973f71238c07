import { setFlagsFromString } from 'node:v8'
import { startApp, StartError, type App } from '../app.ts'
import { loadConfig } from '../config/load.ts'
import { createReloader } from '../config/reload.ts'
import type { Config } from '../config/schema.ts'
import { configWarnings } from '../config/warnings.ts'
import { createLog, type Log } from '../telemetry/log.ts'
import { createOutput } from '../telemetry/output.ts'
import { systemClock } from '../util/clock.ts'

export interface ServeOptions {
  /** The configuration file; without one the environment alone is read. */
  readonly file: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly version: string
  readonly stderr: (text: string) => void
}

/** What the signals of a process ask for. Installed before anything else, since PID 1 has no default handlers. */
export interface Signals {
  /** Resolves with the first SIGTERM or SIGINT. */
  readonly first: Promise<'SIGTERM' | 'SIGINT'>
  /** Resolves with the next one. */
  readonly second: Promise<void>
  /** Called for each SIGHUP from now on. */
  onHangup(run: () => void): void
}

const STANDARD_OUTPUT = 1
/** The heap is collected when it is half as large again as what was live; V8 would wait for four times of that. */
const HEAP_GROWTH = '--heap-growing-percent=50'

/**
 * Runs the sidecar until it is told to stop.
 *
 * @returns the exit code: 0 after a drain, 1 when it could not start or a second signal cut the drain short
 * @throws ConfigError
 */
export async function serve({ file, env, version, stderr }: ServeOptions, signals: Signals): Promise<number> {
  const config = loadConfig({ ...(file === undefined ? {} : { file }), env })
  const log = createLog({
    level: config.telemetry.log_level,
    clock: systemClock,
    output: createOutput(STANDARD_OUTPUT),
  })
  const warn = createWarner(log)
  warn(config)
  let app: App
  try {
    app = await startApp({ config, env, log, version })
  } catch (error) {
    await log.flush()
    if (!(error instanceof StartError)) throw error
    stderr(`${error.message}\n`)
    return 1
  }
  // Now, and not by the command line: with it there, Node has no use for the compiled form of its modules that it brings.
  setFlagsFromString(HEAP_GROWTH)
  // One request's fault must not end all others; it is logged and counted, and an alert can watch the counter.
  process.on('uncaughtException', (error) => app.telemetry.unexpectedError(error))
  process.on('unhandledRejection', (error) => app.telemetry.unexpectedError(error))

  const reloader = createReloader({
    file,
    env,
    config,
    clock: systemClock,
    async apply(loaded) {
      await app.reload(loaded)
      warn(loaded.config)
    },
    onResult: (problems) => app.reloadFinished(problems),
    onUnexpected: (error) => app.telemetry.unexpectedError(error),
  })
  signals.onHangup(() => reloader.reload())

  // Ctrl-C comes from a person who waits; SIGTERM from a cluster whose load balancers still send requests.
  const delayMs = (await signals.first) === 'SIGINT' ? 0 : app.config.drain.delay
  reloader.close()
  const cutShort = signals.second.then(async () => {
    log.warn('second signal: stopping at once')
    await log.flush()
    return 1
  })
  return Promise.race([app.drain(delayMs).then(() => 0), cutShort])
}

/** Logs what deserves a second look, once. */
function createWarner(log: Log): (config: Config) => void {
  const said = new Set<string>()
  return (config) => {
    for (const warning of configWarnings(config)) {
      if (!said.has(warning)) log.warn(warning)
      said.add(warning)
    }
  }
}
