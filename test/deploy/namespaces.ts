import { spawnSync } from 'node:child_process'
import { startCommand, type Command, type CommandOptions } from '../cli/command.ts'
import type { Answer, Question } from './ask.ts'

/** The network of a pod, imitated: one network namespace for its containers, another for everybody else. */
export interface PodNetwork {
  /** Starts a container of the pod: its loopback is that of the other containers, and of nobody else. */
  start(program: string, argv: readonly string[], options?: CommandOptions): Command
  /** Runs a program in the pod to its end. */
  run(program: string, argv: readonly string[]): Promise<{ readonly code: number | string; readonly text: string }>
  /** Asks from outside; one answer for each question. */
  ask(...questions: readonly Question[]): Promise<readonly Answer[]>
  /** Loads rules of nftables in the pod, as a network plugin does for a NetworkPolicy. */
  filter(rules: string): void
  close(): void
}

export const POD_IP = '10.244.77.2'
/** Interface of the pod that leads outside. */
export const POD_INTERFACE = 'eth0'
/** Addresses outside: a pod of another team, the Prometheus, the node with its kubelet. */
export const OTHER_IP = '10.244.77.3'
export const MONITORING_IP = '10.244.77.4'
export const NODE_IP = '10.244.77.1'

const PREFIX = 'bearward-test'

/** Why no network of a pod can be made here, if so. */
export function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'it needs root'
  if (spawnSync('ip', ['-V']).error !== undefined) return 'there is no ip (iproute2)'
  const name = `${PREFIX}-${process.pid}-check`
  const { status, stderr } = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' })
  spawnSync('ip', ['netns', 'del', name])
  return status === 0 ? undefined : `no network namespace can be made: ${stderr.trim()}`
}

/** Whether nftables can be used. */
export function hasNftables(): boolean {
  return spawnSync('nft', ['--version']).status === 0
}

/** Makes the two namespaces, joined by a wire. They are removed by `close()`, or when this process ends. */
export function createPodNetwork(): PodNetwork {
  removeLeftovers()
  const [pod, outside] = [`${PREFIX}-${process.pid}-pod`, `${PREFIX}-${process.pid}-out`] as const
  const close = () => [pod, outside].forEach((name) => spawnSync('ip', ['netns', 'del', name]))
  process.once('exit', close)
  ip('netns', 'add', pod)
  ip('netns', 'add', outside)
  ip('link', 'add', POD_INTERFACE, 'netns', pod, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', outside)
  ip('-n', pod, 'addr', 'add', `${POD_IP}/24`, 'dev', POD_INTERFACE)
  for (const address of [OTHER_IP, MONITORING_IP, NODE_IP])
    ip('-n', outside, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
  for (const name of [pod, outside]) for (const link of ['lo', 'eth0']) ip('-n', name, 'link', 'set', link, 'up')

  const within = (name: string, program: string, argv: readonly string[], options?: CommandOptions) =>
    startCommand('ip', ['netns', 'exec', name, program, ...argv], options)
  return {
    start: (program, argv, options) => within(pod, program, argv, options),
    async run(program, argv) {
      const command = within(pod, program, argv)
      return { code: await command.ended, text: command.stdout() + command.stderr() }
    },
    async ask(...questions) {
      const command = within(outside, process.execPath, ['test/deploy/ask.ts', POD_IP, JSON.stringify(questions)])
      const code = await command.ended
      if (code !== 0) throw new Error(`asking ended with ${code}: ${command.stderr()}`)
      return JSON.parse(command.stdout()) as Answer[]
    },
    filter(rules) {
      const { status, stderr } = spawnSync('ip', ['netns', 'exec', pod, 'nft', '-f', '-'], { input: rules })
      if (status !== 0) throw new Error(`nft: ${String(stderr)}`)
    },
    close() {
      process.off('exit', close)
      close()
    },
  }
}

function ip(...argv: string[]): void {
  const { status, stderr } = spawnSync('ip', argv, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${argv.join(' ')}: ${stderr}`)
}

/** Namespaces of test processes that were killed. */
function removeLeftovers(): void {
  const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' })
  for (const [name, pid] of stdout.matchAll(new RegExp(`^${PREFIX}-(\\d+)-\\w+`, 'gm')))
    if (!isAlive(Number(pid))) spawnSync('ip', ['netns', 'del', name])
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
