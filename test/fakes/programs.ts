import { spawnSync } from 'node:child_process'

/** Whether all of these programs are there; when not, says so, because tests are skipped then. */
export function areInstalled(...programs: readonly string[]): boolean {
  const missing = programs.filter((program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0)
  for (const program of missing) console.log(`skipped: ${program} is not installed, so what needs it is not tested`)
  return missing.length === 0
}
