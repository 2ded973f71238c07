import { realpathSync, watch, type FSWatcher } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock } from '../util/clock.ts'

export interface WatchOptions {
  readonly clock: Clock
  /** Something may have changed; called some time after the last of several changes, and every 30 s in any case. */
  readonly onChange: () => void
}

export interface Watch {
  /** Watches the folders of these files from now on, and no others. */
  follow(files: readonly string[]): void
  close(): void
}

/** A change comes as several events, and at the first of them the old content may still be there. */
const SETTLE_MS = 100
/** Watches are a limited good of the whole node, and some file systems have none. */
const POLL_MS = 30_000

/**
 * Says when files may have changed. It watches their folders, never the files: a kubelet replaces the folder that all files
 * of a volume are links into (`..data`), after which a watch on a file is one on nothing.
 */
export function createWatch({ clock, onChange }: WatchOptions): Watch {
  let watchers: FSWatcher[] = []
  let callOff: (() => void) | undefined
  let closed = false

  const later = (delayMs: number) => {
    callOff?.()
    if (closed) return
    callOff = clock.after(delayMs, () => {
      later(POLL_MS)
      onChange()
    })
  }
  const stop = () => {
    for (const watcher of watchers) watcher.close()
    watchers = []
  }
  later(POLL_MS)

  return {
    follow(files) {
      stop()
      if (closed) return
      const folders = new Set(files.flatMap(foldersOf))
      watchers = [...folders].flatMap((folder) => tryWatch(folder, () => later(SETTLE_MS)))
    },
    close() {
      closed = true
      callOff?.()
      stop()
    },
  }
}

/** Where a file is looked for, and where it really is: a link may point at one that is written in place. */
function foldersOf(file: string): string[] {
  try {
    return [dirname(file), dirname(realpathSync(file))]
  } catch {
    return [dirname(file)]
  }
}

/** A folder that cannot be watched is looked at every 30 s like all others. */
function tryWatch(folder: string, onEvent: () => void): FSWatcher[] {
  try {
    const watcher = watch(folder, { persistent: false }, onEvent)
    watcher.on('error', () => watcher.close())
    return [watcher]
  } catch {
    return []
  }
}
