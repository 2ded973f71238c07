import { write } from 'node:fs'

/** Where log lines go: a file descriptor behind a buffer. */
export interface Output {
  /** Takes one line; never waits. */
  write(line: string): void
  /** Resolves when everything taken so far is written, or after two seconds when it cannot be. */
  flush(): Promise<void>
  /** How many lines were lost because the reader could not take them. */
  dropped(): number
}

/** Written out every quarter of a second or when a block is full: batching is what makes an access log affordable. */
const FLUSH_INTERVAL_MS = 250
const BLOCK_BYTES = 64 * 1024
/** When whoever reads is stuck, lines are dropped and counted rather than memory filled. */
const MAX_BLOCKS = 128
const RETRY_MS = 50
const FLUSH_LIMIT_MS = 2_000
/** A UTF-16 unit becomes at most three bytes. */
const MAX_BYTES_PER_UNIT = 3

/**
 * Creates the output for a file descriptor. Lines are copied into blocks outside the heap at once: strings that wait to be
 * written survive several garbage collections, which cost more than making and writing them.
 */
export function createOutput(fd: number): Output {
  let block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  let used = 0
  let dropped = 0
  let writing = false
  const spare: Buffer[] = []
  const full: { readonly block: Buffer; readonly bytes: number }[] = []
  const waiting: (() => void)[] = []

  const seal = () => {
    full.push({ block, bytes: used })
    block = spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES)
    used = 0
  }

  const finishBlock = () => {
    const done = full.shift()
    if (done !== undefined && spare.length < 2) spare.push(done.block)
    writeNext(0)
  }

  const writeNext = (from: number): void => {
    const next = full[0]
    writing = next !== undefined
    if (next === undefined) {
      for (const resolve of waiting.splice(0)) resolve()
      return
    }
    write(fd, next.block, from, next.bytes - from, null, (error, written) => {
      if (error?.code === 'EAGAIN') setTimeout(() => writeNext(from), RETRY_MS)
      // A reader that is gone stays gone: what it should have read is lost, and the process goes on.
      else if (error !== null || from + written >= next.bytes) finishBlock()
      else writeNext(from + written)
    })
  }

  const flush = () => {
    if (used > 0) seal()
    if (!writing) writeNext(0)
  }

  setInterval(() => {
    if (used > 0 && !writing) flush()
  }, FLUSH_INTERVAL_MS).unref()

  return {
    write(line) {
      if (line.length * MAX_BYTES_PER_UNIT > BLOCK_BYTES - used) {
        if (full.length >= MAX_BLOCKS || line.length * MAX_BYTES_PER_UNIT > BLOCK_BYTES) {
          dropped += 1
          return
        }
        flush()
      }
      used += block.write(line, used)
    },
    flush: () =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, FLUSH_LIMIT_MS)
        waiting.push(() => {
          clearTimeout(timer)
          resolve()
        })
        flush()
      }),
    dropped: () => dropped,
  }
}
