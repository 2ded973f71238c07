import { isIP } from 'node:net'
import type { Config } from './config/schema.ts'
import { readSecret } from './config/secrets.ts'
import { createBreaker } from './helper/breaker.ts'
import { createRateLimiter } from './helper/rate-limit.ts'
import { createDevicePace } from './helper/device-pace.ts'
import type { ExchangeMemory } from './helper/exchange.ts'
import { createOwnTokens } from './helper/own-tokens.ts'
import { createSpender } from './helper/spend.ts'
import { LONGEST_SPEND_MS, toKey, type KeptSpending, type ProcessContext, type RuntimeParts } from './parts.ts'
import { createRedisStore, type RedisStoreOptions } from './store/redis.ts'
import type { Store } from './store/store.ts'
import { share, type Shared } from './util/shared.ts'

type Context = ProcessContext & { readonly config: Config }

/** What every runtime takes over from the one before, whatever is configured. */
export function keepSpending({ telemetry, clock }: Context, previous: RuntimeParts | undefined): KeptSpending {
  if (previous !== undefined) return previous.spending
  return {
    spender: createSpender({
      clock,
      onCoalesced: telemetry.exchangeCoalesced,
      onReplayed: telemetry.exchangeReplayed,
      onUnshared: telemetry.exchangeUnshared,
    }),
    breaker: createBreaker({ clock, onChange: telemetry.breakerChanged }),
    limiter: createRateLimiter(clock),
  }
}

/** The store of these settings, or a new one. Nothing when none is configured. */
export function shareStore(context: Context, previous: RuntimeParts | undefined): Shared<Store> | undefined {
  const { config, clock } = context
  const settings = config.helper.store
  if (settings === undefined || Object.keys(config.helper.clients).length === 0) return undefined
  // Secrets and certificates are not compared: each new connection reads them.
  const create = () => createRedisStore(toRedisOptions(settings, context))
  // A spend under way ends in the store that it began in.
  const close = (store: Store) => void clock.after(LONGEST_SPEND_MS, () => void store.close())
  return share(previous?.store === undefined ? [] : [previous.store], toKey(settings), create, close)
}

type StoreSettings = NonNullable<Config['helper']['store']>

function toRedisOptions({ redis, on_failure: onFailure }: StoreSettings, context: Context): RedisStoreOptions {
  const { env, telemetry, clock } = context
  const { protocol, hostname, port } = new URL(redis.url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const { password } = redis
  const tls = {
    // RFC 6066 §3: an address is no name to be sent.
    serverName: redis.server_name ?? (isIP(host) === 0 ? host : undefined),
    caFile: redis.ca_file,
    certificateFile: redis.certificate_file,
    keyFile: redis.key_file,
  }
  return {
    host,
    port: port === '' ? 6379 : Number(port),
    tls: protocol === 'rediss:' ? tls : undefined,
    username: redis.username,
    readPassword: password && (() => readSecret(password, env)),
    database: redis.database,
    keyPrefix: redis.key_prefix,
    connectTimeoutMs: redis.connect_timeout,
    commandTimeoutMs: redis.command_timeout,
    clock,
    onChange: (fault) => telemetry.storeChanged(fault, onFailure),
  }
}

/** Creates what is remembered from one exchange to the next, whatever becomes of the configuration. */
export function createExchangeMemory({ telemetry, clock }: ProcessContext): ExchangeMemory {
  return {
    devices: createDevicePace(clock),
    ownTokens: createOwnTokens({ clock, onRenewalFailed: telemetry.renewalFailed }),
    clock,
  }
}

/** Lets spends under way end, for a time in milliseconds, and closes what was shared. */
export async function endSpending({ spending, store }: RuntimeParts, timeoutMs: number): Promise<void> {
  await spending.spender.close(timeoutMs)
  await store?.value.close()
}
