import type { Command } from '../cli/command.ts'

/** A container of a pod, as a kubelet looks at it when the pod ends. */
export interface Container {
  readonly command: Command
  /** In `initContainers` with `restartPolicy: Always`. */
  readonly isSidecar?: boolean
  /** What its preStop hook does. */
  readonly preStop?: () => Promise<unknown>
}

/** How each container ended: its exit code, or the signal that ended it; `early` when it did not wait for its SIGTERM. */
export type End = number | NodeJS.Signals | 'early'

/**
 * Ends a pod in the order of a kubelet (KEP-753): all preStop hooks at once; each app gets SIGTERM after its own hook, each
 * sidecar after its own hook and when the last app is gone; what is left at the end of the grace period gets SIGKILL.
 */
export async function terminatePod(containers: readonly Container[], graceMs = 15_000): Promise<readonly End[]> {
  const apps = containers.filter(({ isSidecar }) => isSidecar !== true).map(({ command }) => command.ended)
  const kill = setTimeout(() => {
    for (const { command } of containers) command.child.kill('SIGKILL')
  }, graceMs)
  const ends = await Promise.all(
    containers.map(async ({ command, isSidecar = false, preStop }) => {
      await preStop?.()
      if (isSidecar) await Promise.all(apps)
      const isEarly = command.child.exitCode !== null || command.child.signalCode !== null
      command.child.kill('SIGTERM')
      const end = await command.ended
      return isEarly ? 'early' : end
    }),
  )
  clearTimeout(kill)
  return ends
}
