import { createHash, randomBytes } from 'node:crypto'

/** What a user agreed to. */
export interface Consent {
  readonly clientId: string
  readonly sub: string
  readonly scope: string
  /** The API that the access token is for, if one was named. */
  readonly audience: string | undefined
  readonly nonce: string | undefined
}

const random = (prefix: string) => `${prefix}${randomBytes(24).toString('base64url')}`

/** What an authorization request asks for. */
export function readConsent(asked: URLSearchParams): Omit<Consent, 'sub' | 'audience'> {
  return {
    clientId: asked.get('client_id') ?? '',
    scope: asked.get('scope') ?? '',
    nonce: asked.get('nonce') ?? undefined,
  }
}

/** Authorization codes: each for one use, bound to a redirect URI and perhaps to a code challenge (RFC 7636 §4.6). */
export function createCodes() {
  const codes = new Map<string, { consent: Consent; redirectUri: string; challenge: string | undefined }>()
  return {
    /** Where the browser goes with a new code (RFC 6749 §4.1.2). */
    redirect(consent: Consent, asked: URLSearchParams): URL {
      const redirectUri = asked.get('redirect_uri') ?? ''
      const code = random('code_')
      codes.set(code, { consent, redirectUri, challenge: asked.get('code_challenge') ?? undefined })
      const back = new URL(redirectUri)
      back.searchParams.set('code', code)
      const state = asked.get('state')
      if (state !== null) back.searchParams.set('state', state)
      return back
    },
    /** @returns undefined for a code that cannot be used like this; it cannot be used again either way */
    use(parameters: ReadonlyMap<string, string>, clientId: string): Consent | undefined {
      const code = parameters.get('code') ?? ''
      const known = codes.get(code)
      codes.delete(code)
      if (known?.consent.clientId !== clientId) return undefined
      if (known.redirectUri !== parameters.get('redirect_uri')) return undefined
      return fits(known.challenge, parameters.get('code_verifier')) ? known.consent : undefined
    },
  }
}

/** A verifier without a challenge is refused, too (RFC 9700 §2.1.1). */
function fits(challenge: string | undefined, verifier: string | undefined): boolean {
  if (challenge === undefined || verifier === undefined) return challenge === verifier
  return createHash('sha256').update(verifier).digest('base64url') === challenge
}

export interface RefreshSettings {
  readonly rotates: boolean
  /** How long the token before the current one goes on working, in milliseconds. */
  readonly graceMs: number
  /** Whether using any other one ends the whole family. */
  readonly revokesOnReuse: boolean
}

interface Family {
  readonly consent: Consent
  readonly tokens: string[]
  rotatedMs: number
  revoked: boolean
}

/** Refresh tokens in families, each the chain of tokens that came from one sign-in. */
export function createRefreshTokens(settings: () => RefreshSettings, now: () => number) {
  const families = new Map<string, Family>()
  const append = (family: Family): string => {
    const token = random('rt_')
    family.tokens.push(token)
    family.rotatedMs = now()
    families.set(token, family)
    return token
  }
  return {
    issue: (consent: Consent) => append({ consent, tokens: [], rotatedMs: 0, revoked: false }),
    /** @returns `next` is absent where the token stays the same */
    spend(token: string, clientId: string): { consent: Consent; next: string | undefined } | 'unknown' | 'reused' {
      const family = families.get(token)
      if (family === undefined || family.revoked || family.consent.clientId !== clientId) return 'unknown'
      const { rotates, graceMs, revokesOnReuse } = settings()
      if (!rotates) return { consent: family.consent, next: undefined }
      const age = family.tokens.length - 1 - family.tokens.indexOf(token)
      const isGood = age === 0 || (age === 1 && now() - family.rotatedMs < graceMs)
      if (isGood) return { consent: family.consent, next: append(family) }
      family.revoked = revokesOnReuse
      return 'reused'
    },
    revoke(token: string): void {
      const family = families.get(token)
      if (family !== undefined) family.revoked = true
    },
    isAlive: (token: string) => families.get(token)?.revoked === false,
  }
}

type DeviceState = 'pending' | 'denied' | 'used' | { readonly sub: string }
interface Device {
  readonly consent: Omit<Consent, 'sub'>
  readonly userCode: string
  readonly untilMs: number
  state: DeviceState
  intervalMs: number
  answeredMs: number
}

/** What polling for a device brings (RFC 8628 §3.5); `over` for a code that is used up or was never there. */
export type DevicePoll = 'pending' | 'slow_down' | 'denied' | 'expired' | 'over' | Consent

/** Device codes with their lifetime and interval. */
export function createDevices(lifetimeMs: number, now: () => number) {
  const devices = new Map<string, Device>()
  const byUserCode = (userCode: string): Device => {
    const device = [...devices.values()].find((one) => one.userCode === userCode)
    if (device === undefined) throw new Error(`no device shows ${userCode}`)
    return device
  }
  const decide = (userCode: string, state: DeviceState) => void (byUserCode(userCode).state = state)
  return {
    /** @returns the codes, and the pages for them (RFC 8628 §3.2) */
    start(consent: Omit<Consent, 'sub'>, uri: string): Readonly<Record<string, string>> {
      const deviceCode = random('device_')
      const userCode = randomBytes(4).toString('hex').toUpperCase().replace(/^..../, '$&-')
      const untilMs = now() + lifetimeMs
      devices.set(deviceCode, {
        consent,
        userCode,
        untilMs,
        state: 'pending',
        intervalMs: 5_000,
        answeredMs: -Infinity,
      })
      return {
        device_code: deviceCode,
        user_code: userCode,
        verification_uri: uri,
        verification_uri_complete: `${uri}?user_code=${userCode}`,
      }
    },
    approve: (userCode: string, sub = 'user-1') => decide(userCode, { sub }),
    deny: (userCode: string) => decide(userCode, 'denied'),
    poll(deviceCode: string, clientId: string): DevicePoll {
      const device = devices.get(deviceCode)
      if (device?.consent.clientId !== clientId || device.state === 'used') return 'over'
      const result = pollDevice(device, now())
      device.answeredMs = now()
      if (typeof result === 'object' || result === 'denied' || result === 'expired') device.state = 'used'
      return result
    },
  }
}

function pollDevice(device: Device, nowMs: number): DevicePoll {
  if (nowMs >= device.untilMs) return 'expired'
  if (nowMs - device.answeredMs < device.intervalMs) {
    device.intervalMs += 5_000
    return 'slow_down'
  }
  const { state, consent } = device
  if (typeof state === 'object') return { ...consent, sub: state.sub }
  return state === 'denied' ? 'denied' : 'pending'
}
