import { readFileSync } from 'node:fs'
import { backoffMs } from '../util/backoff.ts'
import type { Clock } from '../util/clock.ts'
import { StoreError, type Store, type StoreStatus } from './store.ts'

export interface RedisStoreOptions {
  readonly host: string
  readonly port: number
  /** Absent for a connection in the clear. */
  readonly tls: RedisTls | undefined
  readonly username: string | undefined
  /** Reads the password for each connection, so that a rotated one is noticed. */
  readonly readPassword: (() => string) | undefined
  readonly database: number
  /** Begins every key, so that several deployments can share one Redis. */
  readonly keyPrefix: string
  /** From the call to the end of the greeting, in milliseconds. */
  readonly connectTimeoutMs: number
  /** For one command, in milliseconds. */
  readonly commandTimeoutMs: number
  readonly clock: Clock
  /** The store became usable, or stopped being so for a reason: once for each change. */
  readonly onChange: (fault: string | undefined) => void
}

/** Files in PEM form, read for each connection. */
export interface RedisTls {
  /** Absent for the address that is connected to. */
  readonly serverName: string | undefined
  readonly caFile: string | undefined
  readonly certificateFile: string | undefined
  readonly keyFile: string | undefined
}

/** What of the library is used: a connection that speaks the protocol. */
interface Connection {
  connect(): Promise<unknown>
  sendCommand(args: readonly string[]): Promise<unknown>
  destroy(): void
  on(event: 'error' | 'terminated' | 'end', listener: (error: unknown) => void): unknown
}

/** Loaded when it is needed: it takes a tenth of a second and 25 MB. */
async function loadLibrary(): Promise<(options: Record<string, unknown>) => Connection> {
  const { createClient } = await import('@redis/client')
  return createClient
}

const RECONNECT = { baseMs: 100, maxMs: 5_000 }

// Scripts, because older servers know no command that does it.
const GET_OR_SET = `local current = redis.call('get', KEYS[1])
if current then return current end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return nil`
const REPLACE_IF_EQUAL = `if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3])
return 1`
const DELETE_IF_EQUAL = `if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('del', KEYS[1])`
/** Whether this server takes scripts and writes: a replica, or one that is full, is of no use. */
const GREET = `return redis.call('set', KEYS[1], '1', 'px', 1000)`

/** Refusals by which a server says that another one is in charge, or that it is not what it was. */
const DISCONNECTING = new Set(['READONLY', 'LOADING', 'MASTERDOWN', 'NOAUTH', 'WRONGPASS', 'NOPERM'])
/** All refusals that are written down by their names; what else a server may say is its own choice. */
const REFUSALS = new Set([
  ...DISCONNECTING,
  ...['ERR', 'OOM', 'MISCONF', 'BUSY', 'DENIED', 'NOREPLICAS', 'WRONGTYPE', 'NOSCRIPT', 'EXECABORT'],
  ...['MOVED', 'ASK', 'CROSSSLOT', 'CLUSTERDOWN', 'TRYAGAIN'],
])

/**
 * A store in Redis (2.6 and later, or what speaks like it; no cluster). It connects by itself, and again whenever the connection is
 * lost, with back-off; meanwhile commands fail at once. A command that is not answered in time ends the connection, so that
 * the next one does not wait behind it. No error of the library leaves this file.
 */
export function createRedisStore(options: RedisStoreOptions): Store {
  return new RedisStore(options)
}

class RedisStore implements Store {
  readonly #options: RedisStoreOptions
  #connection: Connection | undefined
  #state: StoreStatus['state'] = 'connecting'
  #fault = 'connecting'
  #attempts = 0
  #callOff: () => void = () => undefined
  /** Ends with the first attempt to connect, however that goes. */
  readonly #first: Promise<void>
  readonly status = (): StoreStatus => ({ kind: 'redis', state: this.#state })

  constructor(options: RedisStoreOptions) {
    this.#options = options
    this.#first = this.#connect()
  }

  async get(key: string): Promise<string | undefined> {
    const reply = await this.#run('GET', this.#name(key))
    return typeof reply === 'string' ? reply : undefined
  }

  async set(key: string, value: string, ttlMs: number): Promise<void> {
    await this.#run('SET', this.#name(key), value, 'PX', toTtl(ttlMs))
  }

  async getOrSet(key: string, value: string, ttlMs: number): Promise<string | undefined> {
    const reply = await this.#run('EVAL', GET_OR_SET, '1', this.#name(key), value, toTtl(ttlMs))
    return typeof reply === 'string' ? reply : undefined
  }

  async replaceIfEqual(key: string, expected: string, value: string, ttlMs: number): Promise<boolean> {
    return (await this.#run('EVAL', REPLACE_IF_EQUAL, '1', this.#name(key), expected, value, toTtl(ttlMs))) === 1
  }

  async deleteIfEqual(key: string, expected: string): Promise<boolean> {
    return (await this.#run('EVAL', DELETE_IF_EQUAL, '1', this.#name(key), expected)) === 1
  }

  async close(): Promise<void> {
    this.#state = 'closed'
    this.#fault = 'closed'
    this.#callOff()
    const connection = this.#connection
    this.#connection = undefined
    if (connection !== undefined) destroy(connection)
    await this.#first
  }

  #name(key: string): string {
    return `${this.#options.keyPrefix}:${key}`
  }

  async #run(...command: string[]): Promise<unknown> {
    if (this.#state === 'connecting') await this.#first
    const connection = this.#connection
    if (this.#state !== 'ready' || connection === undefined) throw new StoreError(this.#fault, true)
    try {
      return await within(connection.sendCommand(command), this.#options.commandTimeoutMs)
    } catch (error) {
      const code = toCode(error)
      if (!isReply(error) || DISCONNECTING.has(code)) this.#lost(connection, code)
      throw new StoreError(code, false)
    }
  }

  async #connect(): Promise<void> {
    let connection: Connection | undefined
    try {
      const create = await loadLibrary()
      connection = create(toClientOptions(this.#options))
      const current = connection
      // Without a listener an error event would end the process.
      for (const event of ['error', 'terminated', 'end'] as const) {
        current.on(event, (error) => this.#lost(current, toCode(error)))
      }
      await within(greet(current, this.#options), this.#options.connectTimeoutMs)
      if (this.#state === 'closed') return destroy(current)
      this.#connection = current
      this.#attempts = 0
      this.#change(undefined)
    } catch (error) {
      if (connection !== undefined) destroy(connection)
      this.#change(toCode(error))
      this.#reconnect()
    }
  }

  /** Gives a connection up, if it is the one in use. */
  #lost(connection: Connection, code: string): void {
    if (this.#connection !== connection) return
    this.#connection = undefined
    destroy(connection)
    this.#change(code)
    this.#reconnect()
  }

  #reconnect(): void {
    if (this.#state === 'closed') return
    this.#attempts += 1
    this.#callOff = this.#options.clock.after(backoffMs(this.#attempts, RECONNECT), () => void this.#connect())
  }

  #change(fault: string | undefined): void {
    if (this.#state === 'closed') return
    const state = fault === undefined ? 'ready' : 'unavailable'
    const changed = this.#state !== state
    this.#state = state
    this.#fault = fault ?? ''
    if (changed) this.#options.onChange(fault)
  }
}

async function greet(connection: Connection, { keyPrefix }: RedisStoreOptions): Promise<void> {
  await connection.connect()
  await connection.sendCommand(['EVAL', GREET, '1', `${keyPrefix}:greeting`])
}

function toClientOptions(options: RedisStoreOptions): Record<string, unknown> {
  const { host, port, tls, username, readPassword, database, connectTimeoutMs } = options
  return {
    // One connection per client: when and how often to connect again is decided here.
    socket: { host, port, connectTimeout: connectTimeoutMs, reconnectStrategy: false, ...toTlsOptions(tls) },
    ...(username !== undefined && { username }),
    ...(readPassword !== undefined && { password: readPassword() }),
    database,
    // The old protocol, which every server and every proxy of them speaks.
    RESP: 2,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    commandsQueueMaxLength: 10_000,
  }
}

function toTlsOptions(tls: RedisTls | undefined): Record<string, unknown> {
  if (tls === undefined) return {}
  const { serverName, caFile, certificateFile, keyFile } = tls
  return {
    tls: true,
    ...(serverName !== undefined && { servername: serverName }),
    ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    ...(certificateFile !== undefined && { cert: readFileSync(certificateFile) }),
    ...(keyFile !== undefined && { key: readFileSync(keyFile) }),
  }
}

function destroy(connection: Connection): void {
  try {
    connection.destroy()
  } catch {
    // It was closed already.
  }
}

/** @throws StoreError `timeout`; whatever comes of the promise later is dropped */
async function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  const timeout = Promise.withResolvers<never>()
  const timer = setTimeout(() => timeout.reject(new StoreError('timeout', false)), timeoutMs)
  try {
    return await Promise.race([promise, timeout.promise])
  } finally {
    clearTimeout(timer)
    promise.catch(() => undefined)
  }
}

function toTtl(ttlMs: number): string {
  return String(Math.max(1, Math.ceil(ttlMs)))
}

/** Whether the server itself said no, in words that begin with a code in capitals. */
function isReply(error: unknown): error is Error {
  return (
    error instanceof Error && /^[A-Z]{2,20}\b/.test(error.message) && (error as { code?: unknown }).code === undefined
  )
}

/** Keeps a short word alone: messages of the library and of the server may hold addresses, names and values. */
function toCode(error: unknown): string {
  if (error instanceof StoreError) return error.code
  if (!(error instanceof Error)) return 'closed'
  const { code } = error as { code?: unknown }
  const { name } = error.constructor
  if (typeof code === 'string' && /^[A-Za-z0-9_]{1,64}$/.test(code)) return code
  if (isReply(error)) {
    const word = /^[A-Z]+/.exec(error.message)?.[0] ?? ''
    return REFUSALS.has(word) ? word : 'refused'
  }
  return LIBRARY_CODES[name] ?? 'failed'
}

const LIBRARY_CODES: Readonly<Record<string, string>> = {
  ConnectionTimeoutError: 'timeout',
  SocketTimeoutError: 'timeout',
  SocketClosedUnexpectedlyError: 'connection_closed',
  DisconnectsClientError: 'connection_closed',
  ClientClosedError: 'connection_closed',
  ClientOfflineError: 'connection_closed',
  ConfigError: 'password_unreadable',
}
