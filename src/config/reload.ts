import { isDeepStrictEqual } from 'node:util'
import { ConfigError, formatProblem } from '../errors.ts'
import type { Clock } from '../util/clock.ts'
import type { Environment } from './env.ts'
import { checkFiles, digestFiles, referencedFiles } from './files.ts'
import { loadConfigWithPlaces, type LoadedConfig } from './load.ts'
import type { Config } from './schema.ts'
import { createWatch, type Watch } from './watch.ts'

/** A configuration is good, but cannot be taken into use for now; the message says why, for the operator. */
export class NotAppliedError extends Error {
  override readonly name = 'NotAppliedError'
}

export interface ReloaderOptions {
  /** The configuration file. Without one, only the files that the environment names can change. */
  readonly file: string | undefined
  readonly env: Environment
  /** The configuration in use. */
  readonly config: Config
  readonly clock: Clock
  /**
   * Takes a configuration into use, wholly or not at all.
   *
   * @throws (rejects with) ConfigError or NotAppliedError; then everything is as it was before
   */
  readonly apply: (loaded: LoadedConfig) => Promise<void>
  /** Called after each attempt with its problems, each with its place; none when it went well. */
  readonly onResult: (problems: readonly string[]) => void
  readonly onUnexpected: (error: unknown) => void
}

export interface Reloader {
  /** Loads the configuration again, whether or not anything has changed. */
  reload(): void
  close(): void
}

/**
 * Keeps a running process at the configuration that is in its files: loads it again when the file or any file it names has
 * other content. What cannot be loaded is reported once, and changes nothing. An attempt that failed is repeated every 30 s.
 */
export function createReloader(options: ReloaderOptions): Reloader {
  return new FileReloader(options)
}

class FileReloader implements Reloader {
  readonly #options: ReloaderOptions
  readonly #watch: Watch
  /** What was in the files when they were last read, by path. */
  #seen: ReadonlyMap<string, string>
  #problems: readonly string[] = []
  #underWay = false
  /** Asked for while an attempt was under way; `forced` when by `reload()`. */
  #next: 'none' | 'check' | 'forced' = 'none'
  #closed = false

  constructor(options: ReloaderOptions) {
    this.#options = options
    this.#seen = digestFiles(this.#filesOf(options.config))
    this.#watch = createWatch({ clock: options.clock, onChange: () => void this.#run(false) })
    this.#watch.follow([...this.#seen.keys()])
  }

  reload(): void {
    void this.#run(true)
  }

  close(): void {
    this.#closed = true
    this.#watch.close()
  }

  async #run(forced: boolean): Promise<void> {
    if (this.#underWay) {
      if (this.#next !== 'forced') this.#next = forced ? 'forced' : 'check'
      return
    }
    const repeated = !forced && !this.#hasChanged()
    if (this.#closed || (repeated && this.#problems.length === 0)) return
    this.#underWay = true
    const before = this.#problems
    this.#problems = await this.#attempt()
    this.#underWay = false
    if (this.#closed) return
    this.#watch.follow([...this.#seen.keys()])
    if (!repeated || !isDeepStrictEqual(this.#problems, before)) this.#options.onResult(this.#problems)
    const next = this.#next
    this.#next = 'none'
    if (next !== 'none') void this.#run(next === 'forced')
  }

  /** @returns the problems; none when the configuration was taken into use */
  async #attempt(): Promise<readonly string[]> {
    const { file, env, apply } = this.#options
    // Always before what it describes is read: a change in between is then noticed the next time.
    this.#seen = digestFiles([...this.#seen.keys()])
    try {
      const loaded = loadConfigWithPlaces({ ...(file === undefined ? {} : { file }), env })
      const files = this.#filesOf(loaded.config)
      // Of a configuration that is not taken into use, too: what is wrong may be a file that it names.
      const added = files.filter((one) => !this.#seen.has(one))
      this.#seen = new Map([...this.#seen, ...digestFiles(added)])
      checkFiles(loaded, env)
      await apply(loaded)
      this.#seen = new Map([...this.#seen].filter(([one]) => files.includes(one)))
      return []
    } catch (error) {
      if (error instanceof ConfigError) return error.problems.map(formatProblem)
      if (error instanceof NotAppliedError) return [error.message]
      this.#options.onUnexpected(error)
      return ['an unexpected error; the log has the details']
    }
  }

  #hasChanged(): boolean {
    return !isDeepStrictEqual(digestFiles([...this.#seen.keys()]), this.#seen)
  }

  #filesOf(config: Config): string[] {
    const { file } = this.#options
    return [...new Set([...(file === undefined ? [] : [file]), ...referencedFiles(config)])]
  }
}
