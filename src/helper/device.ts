import * as oauth from 'oauth4webapi'
import { GrantError } from '../errors.ts'
import type { Clock } from '../util/clock.ts'
import type { HelperClient } from './clients.ts'
import { deviceKey, type DevicePace } from './device-pace.ts'
import { askIssuer, type IssuerAnswer } from './endpoint.ts'
import { validationFailed } from './grant-errors.ts'
import type { DeviceGrant } from './grants.ts'
import { toRefusal } from './token-endpoint.ts'

type Body = Readonly<Record<string, unknown>>

/** RFC 8628 §3.2. */
const DEFAULT_INTERVAL_SECONDS = 5

/**
 * Starts the flow of a device: asks the issuer for a device code and a user code.
 *
 * @returns the answer in the form of RFC 8628 §3.2, whatever the issuer calls its members
 * @throws GrantError
 */
export async function startDevice(client: HelperClient, parameters: URLSearchParams, pace: DevicePace): Promise<Body> {
  const answer = await askIssuer(client, 'device_authorization_endpoint', parameters)
  if (answer.status !== 200 || typeof answer.body?.['error'] === 'string') throw toRefusal(answer)
  const device = await readDevice(client, answer)
  const interval = device.interval ?? DEFAULT_INTERVAL_SECONDS
  pace.begin(deviceKey(client.name, device.device_code), interval * 1000, device.expires_in * 1000)
  return { ...device, interval }
}

async function readDevice({ issuer, clientId }: HelperClient, { body }: IssuerAnswer) {
  if (body === undefined) throw validationFailed('not a JSON object')
  const response = new Response(JSON.stringify(inStandardForm(body)), {
    headers: { 'content-type': 'application/json' },
  })
  try {
    const device = await oauth.processDeviceAuthorizationResponse(
      { issuer: issuer.issuer },
      { client_id: clientId },
      response,
    )
    // Somebody will be shown this as a place to go.
    if (!/^https?:\/\//i.test(device.verification_uri)) throw validationFailed('verification_uri')
    return device
  } catch (error) {
    if (error instanceof oauth.OperationProcessingError) throw validationFailed(error.code ?? 'form')
    throw error
  }
}

/** Google calls the address `verification_url`; some issuers write numbers as texts, or send empty members. */
function inStandardForm(body: Body): Body {
  const { verification_url: url, verification_uri: uri = url, interval, ...rest } = body
  const seconds = Number(interval)
  const filled = Object.entries(rest).filter(([, value]) => value !== null && value !== '')
  return {
    ...Object.fromEntries(filled),
    verification_uri: uri,
    ...(seconds > 0 && Number.isFinite(seconds) && { interval: Math.ceil(seconds) }),
  }
}

/** How often the user's decision is looked for, and for how long a caller waits for it. */
export interface DevicePoll {
  readonly pace: DevicePace
  readonly clock: Clock
  /** The caller left, or the process ends: whatever is not under way is not begun. */
  readonly gone: AbortSignal
}

/** A caller that is early by less is held rather than refused: it counts from its request, not from our answer. */
const PATIENCE_MS = 1_000

/**
 * Polls for the tokens of a device until the user decided or the caller waited long enough, never more often than the issuer
 * wants. A caller that does not wait and comes too early gets `slow_down` without the issuer being asked; but for the first
 * poll, `authorization_pending`: many clients poll as soon as they started, and would be slower for good.
 *
 * @param ask - spends the device code once
 * @throws GrantError `authorization_pending`, `slow_down`, and whatever `ask` throws
 * @see RFC 8628 §3.5
 */
export async function pollDevice<T>(
  { name }: HelperClient,
  { deviceCode, waitMs }: DeviceGrant,
  { pace, clock, gone }: DevicePoll,
  ask: () => Promise<T>,
): Promise<T> {
  const key = deviceKey(name, deviceCode)
  const isFirst = pace.isFirst(key)
  const deadlineMs = clock.now() + waitMs
  for (;;) {
    const delayMs = pace.delayMs(key)
    const leftMs = deadlineMs - clock.now()
    if (waitMs === 0 && delayMs > PATIENCE_MS) throw isFirst ? authorizationPending() : slowDown(delayMs)
    if (waitMs > 0 && delayMs > leftMs) {
      await sleep(Math.max(leftMs, 0), clock, gone)
      throw authorizationPending()
    }
    await sleep(delayMs, clock, gone)
    if (gone.aborted) throw authorizationPending()
    try {
      return await ask()
    } catch (error) {
      const canGoOn = error instanceof GrantError && GOING_ON.has(error.code)
      if (!canGoOn || waitMs === 0) throw error
    }
  }
}

const GOING_ON: ReadonlySet<string> = new Set(['authorization_pending', 'slow_down'])

/**
 * Takes note of how one poll ended, and puts a refusal into the words of RFC 8628.
 *
 * @throws GrantError
 */
export async function notePoll<T>(key: string, pace: DevicePace, poll: () => Promise<T>): Promise<T> {
  try {
    const tokens = await poll()
    pace.end(key)
    return tokens
  } catch (error) {
    const known = error instanceof GrantError ? inStandardWords(error) : error
    if (known instanceof GrantError) noteRefusal(key, pace, known)
    throw known
  }
}

function noteRefusal(key: string, pace: DevicePace, { code, headers }: GrantError): void {
  if (code === 'authorization_pending') pace.pending(key)
  else if (code === 'slow_down') pace.slowDown(key, readSeconds(headers?.['retry-after']) * 1000)
  else if (FINAL.has(code)) pace.end(key)
  else pace.backOff(key)
}

/** Refusals after which nothing more will come of a device code. */
const FINAL: ReadonlySet<string> = new Set(['refused_by_issuer', 'token_validation_failed'])

/** Longest time that an issuer may silence its polls for, in seconds. */
const MAX_RETRY_AFTER = 300

function readSeconds(text: string | undefined): number {
  return /^\d{1,6}$/.test(text ?? '') ? Math.min(Number(text), MAX_RETRY_AFTER) : 0
}

/** Names that providers use instead of those of RFC 8628 §3.5 and RFC 6749 §5.2. */
const OTHER_WORDS: Readonly<Record<string, string>> = {
  authorization_declined: 'access_denied',
  code_expired: 'expired_token',
  bad_verification_code: 'invalid_grant',
  incorrect_device_code: 'invalid_grant',
}
const DEVICE_WORDS = new Set(['authorization_pending', 'slow_down', 'access_denied', 'expired_token', 'invalid_grant'])

/** The same refusal with the status and word of the RFC: Auth0 says 403 and 429, Google 428, Entra has words of its own. */
function inStandardWords(error: GrantError): GrantError {
  if (error.code === 'issuer_busy') return slowDown(readSeconds(error.headers?.['retry-after']) * 1000)
  if (error.code !== 'refused_by_issuer') return error
  const word = Object.hasOwn(OTHER_WORDS, error.error) ? (OTHER_WORDS[error.error] as string) : error.error
  if (word === 'slow_down' || error.status === 429) return slowDown(readSeconds(error.headers?.['retry-after']) * 1000)
  if (word === 'authorization_pending') return authorizationPending()
  if (!DEVICE_WORDS.has(word)) return error
  const { description, members, headers, detail } = error
  return new GrantError('refused_by_issuer', { status: 400, error: word, description, members, headers, detail })
}

function authorizationPending(): GrantError {
  return new GrantError('authorization_pending', {
    status: 400,
    error: 'authorization_pending',
    description: 'The user has not decided yet.',
  })
}

function slowDown(delayMs: number): GrantError {
  return new GrantError('slow_down', {
    status: 400,
    error: 'slow_down',
    description: 'The device code is polled too often: wait 5 seconds longer between requests from now on.',
    headers: delayMs > 0 ? { 'retry-after': String(Math.ceil(delayMs / 1000)) } : undefined,
  })
}

/** Ends early, without an error, when there is nobody left to wait. */
function sleep(ms: number, clock: Clock, gone: AbortSignal): Promise<void> {
  if (ms === 0 || gone.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      callOff()
      gone.removeEventListener('abort', done)
      resolve()
    }
    const callOff = clock.after(ms, done)
    gone.addEventListener('abort', done)
  })
}
