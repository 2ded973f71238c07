import { allContainers, type Container, type PodSpec, type SecurityContext } from './manifests.ts'

/** The volume types that the profile "restricted" allows. */
const VOLUMES = [
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'persistentVolumeClaim',
  'projected',
  'secret',
]
const SAFE_SYSCTLS = [
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.ping_group_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
]
const SELINUX_TYPES = ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t']

/** What of a pod the profile "restricted" of the Pod Security Standards forbids; empty for a pod that it admits. */
export function restrictedViolations(pod: PodSpec): string[] {
  return [
    ...(['hostNetwork', 'hostPID', 'hostIPC'] as const).filter((name) => pod[name] === true),
    ...(pod.volumes ?? []).flatMap(({ name, ...kinds }) =>
      Object.keys(kinds)
        .filter((kind) => !VOLUMES.includes(kind))
        .map((kind) => `volume ${name}: ${kind}`),
    ),
    ...contextViolations(pod.securityContext ?? {}).map((what) => `pod: ${what}`),
    ...allContainers(pod).flatMap((container) =>
      containerViolations(container, pod.securityContext ?? {}).map((what) => `${container.name}: ${what}`),
    ),
  ]
}

type Rule<T> = readonly [breach: string, isBreached: (subject: T) => boolean]

/** What may stand neither at the pod nor at a container. */
const CONTEXT_RULES: readonly Rule<SecurityContext>[] = [
  ['runAsUser 0', ({ runAsUser }) => runAsUser === 0],
  ['seccomp Unconfined', ({ seccompProfile }) => seccompProfile?.type === 'Unconfined'],
  ['AppArmor Unconfined', ({ appArmorProfile }) => appArmorProfile?.type === 'Unconfined'],
  ['hostProcess', ({ windowsOptions }) => windowsOptions?.hostProcess === true],
  ['SELinux type', ({ seLinuxOptions }) => !SELINUX_TYPES.includes(seLinuxOptions?.type ?? '')],
  ['SELinux user or role', ({ seLinuxOptions }) => Boolean(seLinuxOptions?.user ?? seLinuxOptions?.role)],
  ['sysctl', ({ sysctls = [] }) => sysctls.some(({ name }) => !SAFE_SYSCTLS.includes(name))],
]

/** What a container must and must not have; the second context is that of its pod, which stands in for some of it. */
const CONTAINER_RULES: readonly Rule<{ ports: Container['ports']; own: SecurityContext; pod: SecurityContext }>[] = [
  ['hostPort', ({ ports = [] }) => ports.some(({ hostPort = 0 }) => hostPort !== 0)],
  ['privileged', ({ own }) => own.privileged === true],
  ['procMount', ({ own }) => (own.procMount ?? 'Default') !== 'Default'],
  ['allowPrivilegeEscalation', ({ own }) => own.allowPrivilegeEscalation !== false],
  ['runAsNonRoot', ({ own, pod }) => (own.runAsNonRoot ?? pod.runAsNonRoot) !== true],
  ['seccompProfile missing', ({ own, pod }) => (own.seccompProfile ?? pod.seccompProfile)?.type === undefined],
  ['capabilities not dropped', ({ own }) => own.capabilities?.drop?.includes('ALL') !== true],
  ['capability added', ({ own }) => (own.capabilities?.add ?? []).some((name) => name !== 'NET_BIND_SERVICE')],
]

function breaches<T>(rules: readonly Rule<T>[], subject: T): string[] {
  return rules.filter(([, isBreached]) => isBreached(subject)).map(([breach]) => breach)
}

function contextViolations(context: SecurityContext): string[] {
  return breaches(CONTEXT_RULES, context)
}

function containerViolations({ ports, securityContext: own = {} }: Container, pod: SecurityContext): string[] {
  return [...contextViolations(own), ...breaches(CONTAINER_RULES, { ports, own, pod })]
}
