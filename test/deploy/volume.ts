import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A folder as a kubelet mounts it for a ConfigMap or Secret. */
export interface Volume {
  readonly folder: string
  path(name: string): string
  /** Replaces all files at once, the way a kubelet does: a new folder, and `..data` renamed to point there. */
  replace(files: Readonly<Record<string, string>>): void
  /** Writes a file in place, as no kubelet does. */
  write(name: string, text: string): void
  remove(): void
}

/** Creates a volume; its files are links through `..data`. */
export function createVolume(files: Readonly<Record<string, string>>): Volume {
  const folder = mkdtempSync(join(tmpdir(), 'bearward-volume-'))
  let generation = 0
  const replace = (next: Readonly<Record<string, string>>) => {
    generation += 1
    const name = `..generation_${generation}`
    mkdirSync(join(folder, name))
    for (const [file, text] of Object.entries(next)) writeFileSync(join(folder, name, file), text)
    const before = currentOf(folder)
    symlinkSync(name, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
    const links = readdirSync(folder).filter((entry) => !entry.startsWith('..'))
    for (const file of Object.keys(next))
      if (!links.includes(file)) symlinkSync(join('..data', file), join(folder, file))
    for (const file of links) if (!(file in next)) rmSync(join(folder, file))
    if (before !== undefined) rmSync(join(folder, before), { recursive: true })
  }
  replace(files)
  return {
    folder,
    path: (name) => join(folder, name),
    replace,
    write: (name, text) => writeFileSync(join(folder, name), text),
    remove: () => rmSync(folder, { recursive: true }),
  }
}

function currentOf(folder: string): string | undefined {
  try {
    return readlinkSync(join(folder, '..data'))
  } catch {
    return undefined
  }
}
