import { pino, type DestinationStream, type Logger } from 'pino'
import type { Detail } from '../errors.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

/** Values a log line may hold. Objects of libraries and of Node (requests, headers, errors) are not among them. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined | Detail | readonly string[]>>

/** One JSON line per call, built from fields that the caller picked one by one. */
export interface Log {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
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

/** Every quarter of a second, or 4 KiB: batching the writes is most of what makes an access log affordable. */
const FLUSH_INTERVAL_MS = 250
const BUFFER_BYTES = 4096

/**
 * Creates the log.
 *
 * @param level - lines below it cost nothing
 * @param destination - where lines go; by default standard output, in batches
 */
export function createLog(level: LogLevel, destination?: DestinationStream): Log {
  const buffered =
    destination === undefined
      ? pino.destination({ dest: 1, sync: false, minLength: BUFFER_BYTES, periodicFlush: FLUSH_INTERVAL_MS })
      : undefined
  const logger: Logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    buffered ?? destination,
  )
  const write = (name: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: LogFields) =>
    logger[name](fields ?? {}, message)
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    flush: () =>
      new Promise((resolve) => {
        if (buffered === undefined) resolve()
        else buffered.flush(() => resolve())
      }),
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
