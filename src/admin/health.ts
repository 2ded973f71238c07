/** Something that must have happened before traffic is welcome. */
export interface Latch {
  readonly name: string
  readonly isOpen: () => boolean
}

/** Answers the three probes of a kubelet. */
export interface Health {
  /** Configuration read and listeners bound. Needs neither the upstream nor an issuer. */
  readonly started: () => boolean
  /** Every issuer's keys loaded once, and not draining. Keys that were loaded count for ever: an outage must not empty all endpoints at once. */
  readonly ready: () => boolean
  /** What readiness waits for, by name. */
  readonly waitingFor: () => readonly string[]
}

export function createHealth(latches: () => readonly Latch[], state: { started: boolean; draining: boolean }): Health {
  const waitingFor = () => [
    ...latches()
      .filter(({ isOpen }) => !isOpen())
      .map(({ name }) => name),
    ...(state.draining ? ['draining'] : []),
  ]
  return { started: () => state.started, ready: () => state.started && waitingFor().length === 0, waitingFor }
}
