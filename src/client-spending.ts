import type { Config } from './config/schema.ts'
import { readSealingKey } from './config/sealing-keys.ts'
import { createSealer, type Sealer } from './helper/seal.ts'
import type { Sharing } from './helper/spend.ts'
import type { Spending } from './helper/spending.ts'
import type { ProcessContext, RuntimeParts } from './parts.ts'
import type { Store } from './store/store.ts'

type Context = ProcessContext & { readonly config: Config }

/**
 * Connects what keeps the spending of one configuration safe.
 *
 * @throws ConfigError when a sealing key cannot be read
 */
export function createSpending({ config, telemetry }: Context, { spending, store }: RuntimeParts): Spending {
  const { spender, breaker, limiter } = spending
  const sharing = store && toSharing(config, store.value)
  return {
    spend: (spend) => spender.spend(spend, sharing),
    breaker,
    limiter,
    sealer: createConfiguredSealer(config),
    onSealed: telemetry.refreshTokenSealed,
  }
}

/** Beside two requests to the issuer and the wait for keys: its metadata, and the slowness of everything. */
const REST_OF_SPEND_MS = 15_000

function toSharing({ helper }: Config, store: Store): Sharing {
  // A client whose secret was just rotated may ask twice.
  const leaseMs = 2 * helper.timeout + helper.validation_wait + REST_OF_SPEND_MS
  return { store, onFailure: helper.store?.on_failure ?? 'local', leaseMs }
}

function createConfiguredSealer({ helper: { sealing } }: Config): Sealer | undefined {
  if (sealing === undefined) return undefined
  return createSealer({
    keys: sealing.key_files.map(readSealingKey),
    bindToCaller: sealing.bind_to_caller,
    acceptUnsealed: sealing.accept_unsealed,
  })
}
