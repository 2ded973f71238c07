import { pino, type Logger } from 'pino'
import type { Detail } from '../errors.ts'
import type { Clock } from '../util/clock.ts'
import type { Output } from './output.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

/** Values a log line may hold. Objects of libraries and of Node (requests, headers, errors) are not among them. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined | Detail | readonly string[]>>

/** One JSON line per call, built from fields that the caller picked one by one. */
export interface Log {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** Like `info` and `warn`, for a line whose members are JSON already: the one line that is written on every request. */
  writeJson(level: 'info' | 'warn', message: string, members: string): void
  /** Lines below the level cost nothing from now on. */
  setLevel(level: LogLevel): void
  /** How many lines were lost because standard output could not take them. */
  droppedLines(): number
  /** Writes out what is buffered; resolves when it is written. */
  flush(): Promise<void>
}

/** Longest text kept of a value that came from outside. */
const MAX_TEXT = 200

/** Cuts a text that came from outside to a length a log can bear. */
export function clip(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}…`
}

/** Cuts every text of a detail, and long lists. */
export function clipDetail(detail: Detail): Detail {
  return Object.fromEntries(
    Object.entries(detail).map(([name, value]) => {
      if (typeof value === 'string') return [name, clip(value)]
      return [name, typeof value === 'number' ? value : value.slice(0, 10).map(clip)]
    }),
  )
}

export interface LogOptions {
  /** Lines below it cost nothing. */
  readonly level: LogLevel
  readonly clock: Clock
  readonly output: Output
}

/** Creates the log. */
export function createLog({ level, clock, output }: LogOptions): Log {
  const time = createTimestamps(clock)
  const logger: Logger = pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${time()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  )
  const write = (name: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: LogFields) =>
    logger[name](fields ?? {}, message)
  const enabled = { info: true, warn: true }
  const setLevel = (level: LogLevel) => {
    logger.level = level
    enabled.info = logger.isLevelEnabled('info')
    enabled.warn = logger.isLevelEnabled('warn')
  }
  setLevel(level)
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    writeJson(name, message, members) {
      if (enabled[name]) output.write(`{"level":"${name}","time":"${time()}",${members},"msg":"${message}"}\n`)
    },
    setLevel,
    droppedLines: output.dropped,
    flush: output.flush,
  }
}

/** RFC 3339 in UTC with milliseconds; the part down to the second is made once a second. */
function createTimestamps(clock: Clock): () => string {
  let second = -1
  let prefix = ''
  return () => {
    const now = clock.now()
    const current = Math.floor(now / 1000)
    if (current !== second) {
      second = current
      prefix = new Date(current * 1000).toISOString().slice(0, 20)
    }
    return `${prefix}${String(now - current * 1000).padStart(3, '0')}Z`
  }
}

/** The parts of an unexpected error that are safe to log: its name, its code and the frames, never its message. */
export function safeErrorFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error: typeof error }
  const code = (error as { code?: unknown }).code
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  return {
    error: error.name,
    error_code: typeof code === 'string' ? code : undefined,
    stack: frames.slice(0, 12).map((line) => line.trim()),
  }
}
