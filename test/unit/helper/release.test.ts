import { beforeEach, describe, expect, it } from 'vitest'
import { GrantError } from '../../../src/errors.ts'
import type { GrantRequest } from '../../../src/helper/grants.ts'
import { createRelease, type AnswerValidated, type Release } from '../../../src/helper/release.ts'
import { createSubjects, readHint, toSubject } from '../../../src/helper/subjects.ts'
import { requireKeys } from '../../../src/helper/warm-keys.ts'
import type { HelperClient } from '../../../src/helper/clients.ts'
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts'
import { CLIENT_ID, createFakeIssuer, createHelperClient, type FakeIssuer } from '../../fakes/helper-client.ts'
import { createSigningKey, ISSUER, signJwt, type SigningKey } from '../../fakes/signer.ts'

const key = createSigningKey('ES256', 'current')
const next = createSigningKey('ES256', 'next')

let clock: FakeClock
let issuer: FakeIssuer
let client: HelperClient
let release: Release
let outcomes: AnswerValidated[]
let revoked: string[]
let revocations: (string | undefined)[]
let revoke: () => Promise<void>

beforeEach(async () => {
  clock = createFakeClock(1_800_000_000_000)
  issuer = createFakeIssuer(clock)
  issuer.publish([key])
  await issuer.start()
  client = createHelperClient(issuer, clock)
  outcomes = []
  revoked = []
  revocations = []
  revoke = () => Promise.resolve()
  release = create(30_000)
})

const create = (waitMs: number) =>
  createRelease({
    subjects: createSubjects(),
    waitMs,
    clock,
    revoke: (_client, token) => {
      revoked.push(token)
      return revoke()
    },
    onValidated: (outcome) => void outcomes.push(outcome),
    onRevoked: (_client, failure) => void revocations.push(failure),
  })

const idToken = (sub = 'user-1', by: SigningKey = key) => {
  const now = clock.now() / 1000
  return signJwt(by, { iss: ISSUER, aud: CLIENT_ID, sub, iat: now, exp: now + 3600 }, { typ: 'JWT' })
}
const spending = (refreshToken: string): GrantRequest => ({
  type: 'refresh_token',
  refreshToken,
  subject: undefined,
  scope: undefined,
  resources: [],
  audiences: [],
})

/** Spends one refresh token for an answer, and says what came of that. */
async function spend(sent: string, response: Record<string, unknown>): Promise<string> {
  const answer = { client, grant: spending(sent), response: { access_token: 'a', token_type: 'Bearer', ...response } }
  return release.check(answer as never).then(
    () => 'ok',
    (error: unknown) => (error instanceof GrantError ? error.code : String(error)),
  )
}

/** Lets time pass in steps, so that everything that follows from a step happens before the next one. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 250) {
    clock.advance(Math.min(250, left))
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Lets time pass until something came of it; signatures are checked in time that nobody can move. */
async function settled(spending: Promise<string>): Promise<string> {
  let outcome: string | undefined
  void spending.then((end) => (outcome = end))
  for (let step = 0; outcome === undefined && step < 2_000; step += 1) {
    clock.advance(250)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return outcome ?? 'nothing'
}

describe('an answer', () => {
  it('that is genuine is released at once', async () => {
    expect(await spend('r-1', { id_token: idToken(), refresh_token: 'r-2' })).toBe('ok')
    expect(outcomes).toEqual([
      {
        client: 'web',
        grant: 'refresh_token',
        result: 'valid',
        heldMs: 0,
        validated: expect.objectContaining({ idToken: 'valid' }) as object,
        detail: undefined,
      },
    ])
    expect(revoked).toEqual([])
  })

  it('that is not is kept back, and its new refresh token is taken back', async () => {
    expect(await spend('r-1', { token_type: 'mac', refresh_token: 'r-2' })).toBe('token_validation_failed')
    expect(outcomes.at(-1)).toMatchObject({ result: 'refused', detail: { check: 'token_type' } })
    await pass(1)
    expect(revoked).toEqual(['r-2'])
    expect(revocations).toEqual([undefined])
  })

  it('that is not leaves a refresh token alone that its owner has', async () => {
    expect(await spend('r-1', { token_type: 'mac', refresh_token: 'r-1' })).toBe('token_validation_failed')
    expect(await spend('r-1', { token_type: 'mac' })).toBe('token_validation_failed')
    await pass(1)
    expect(revoked).toEqual([])
  })

  it('is refused no later for a revocation that never ends, and no less for one that fails', async () => {
    revoke = () => new Promise(() => undefined)
    expect(await spend('r-1', { token_type: 'mac', refresh_token: 'r-2' })).toBe('token_validation_failed')
    revoke = () => Promise.reject(new GrantError('issuer_unreachable', { status: 502, error: 'x' }))
    expect(await spend('r-1', { token_type: 'mac', refresh_token: 'r-3' })).toBe('token_validation_failed')
    revoke = () => Promise.reject(new TypeError('r-4 in a message'))
    expect(await spend('r-1', { token_type: 'mac', refresh_token: 'r-4' })).toBe('token_validation_failed')
    await pass(1)
    expect(revocations).toEqual(['issuer_unreachable', 'unexpected error'])
  })
})

describe('while the keys are missing', () => {
  /** No request could be verified any more. */
  const loseKeys = async () => {
    issuer.publish(undefined)
    clock.advance(3 * 3_600_000)
    await pass(1000)
    expect(issuer.state()).toBe('expired')
  }

  it('an answer is held, and released when they come', async () => {
    release = create(600_000)
    await loseKeys()
    let outcome: string | undefined
    const spending = spend('r-1', { id_token: idToken(), refresh_token: 'r-2' })
    void spending.then((end) => (outcome = end))
    await pass(8_000)
    expect(outcome).toBeUndefined()
    issuer.publish([key])
    expect(await settled(spending)).toBe('ok')
    expect(outcomes[0]?.heldMs).toBeGreaterThan(8_000)
  })

  it('an answer is given up when the time is over, under a code of its own, and nothing is taken back', async () => {
    await loseKeys()
    let outcome: string | undefined
    void spend('r-1', { id_token: idToken(), refresh_token: 'r-2' }).then((end) => (outcome = end))
    await pass(29_000)
    expect(outcome).toBeUndefined()
    await pass(8_000)
    expect(outcome).toBe('tokens_not_validated')
    expect(outcomes[0]).toMatchObject({ result: 'keys_unavailable', detail: { issuer: 'main' } })
    expect(revoked).toEqual([])
  })

  it('an answer is not held at all with a wait of 0', async () => {
    release = create(0)
    await loseKeys()
    let outcome: string | undefined
    void spend('r-1', { id_token: idToken() }).then((end) => (outcome = end))
    await pass(6_000)
    expect(outcome).toBe('tokens_not_validated')
  })

  it('a mismatch that needs no key is found at once', async () => {
    await loseKeys()
    expect(await spend('r-1', { id_token: idToken(), token_type: 'mac' })).toBe('token_validation_failed')
  })

  it('nothing is spent', async () => {
    await requireKeys(client)
    await loseKeys()
    const outcome = requireKeys(client).then(
      () => 'ok',
      (error: unknown) => (error as GrantError).code,
    )
    await pass(6_000)
    expect(await outcome).toBe('keys_unavailable')
  })

  it('one fetch is tried before nothing is spent', async () => {
    await loseKeys()
    issuer.publish([key])
    await requireKeys(client)
    expect(issuer.state()).toBe('fresh')
  })
})

it('a key that the issuer began to sign with, just after it was asked for another one, is waited for', async () => {
  release = create(600_000)
  await Promise.resolve(issuer.accepted.keys.find('forged', 'ES256'))
  issuer.publish([key, next])
  let outcome: string | undefined
  const spending = spend('r-1', { id_token: idToken('user-1', next) })
  void spending.then((end) => (outcome = end))
  await pass(2_000)
  expect(outcome).toBeUndefined()
  expect(await settled(spending)).toBe('ok')
  expect(outcomes[0]?.heldMs).toBeGreaterThan(2_000)
})

it('a key that the issuer never publishes is a mismatch in the end', async () => {
  let outcome: string | undefined
  void spend('r-1', { id_token: idToken('user-1', next), refresh_token: 'r-2' }).then((end) => (outcome = end))
  await pass(33_000)
  expect(outcome).toBe('token_validation_failed')
  expect(revoked).toEqual(['r-2'])
})

describe('whom the tokens are about', () => {
  it('must stay the same along a chain of refresh tokens', async () => {
    expect(await spend('r-1', { id_token: idToken('user-1'), refresh_token: 'r-2' })).toBe('ok')
    // Without an ID token in between.
    expect(await spend('r-2', { refresh_token: 'r-3' })).toBe('ok')
    expect(await spend('r-3', { id_token: idToken('user-1'), refresh_token: 'r-4' })).toBe('ok')
    expect(outcomes.at(-1)).toMatchObject({ validated: { subject: 'same' } })
    expect(await spend('r-4', { id_token: idToken('user-2'), refresh_token: 'r-5' })).toBe('token_validation_failed')
    expect(outcomes.at(-1)).toMatchObject({ detail: { check: 'id_token claim_not_accepted', claim: 'sub' } })
    expect(revoked).toEqual(['r-5'])
  })

  it('must stay the same without rotation', async () => {
    expect(await spend('r-1', { id_token: idToken('user-1') })).toBe('ok')
    expect(await spend('r-1', { id_token: idToken('user-2') })).toBe('token_validation_failed')
  })

  it('is kept apart for each client, and forgotten for the oldest first', () => {
    const subjects = createSubjects(2)
    subjects.remember('web', 'r-1', 'a')
    subjects.remember('app', 'r-1', 'b')
    expect([subjects.recall('web', 'r-1'), subjects.recall('app', 'r-1')]).toEqual(['a', 'b'])
    subjects.remember('web', 'r-1', 'a')
    subjects.remember('web', 'r-2', 'c')
    expect([subjects.recall('web', 'r-1'), subjects.recall('app', 'r-1')]).toEqual(['a', undefined])
  })

  it('is held against what a caller knows, for each caller', async () => {
    const answer = (sub: string) =>
      ({ client, grant: spending('r-1'), response: { id_token: idToken(sub), refresh_token: 'r-2' } }) as never
    const hint = readHint(idToken('user-1'))
    release.compare(answer('user-1'), hint)
    release.compare(answer('user-2'), undefined)
    expect(revoked).toEqual([])
    expect(() => release.compare(answer('user-2'), hint)).toThrow(GrantError)
    await pass(1)
    expect(revoked).toEqual(['r-2'])
  })

  it('can be said by a hint, which must be an ID token', () => {
    expect(readHint(idToken('user-1'))).toBe(toSubject({ iss: ISSUER, sub: 'user-1' }))
    expect(readHint(undefined)).toBeUndefined()
    for (const hint of ['x', 'a.b.c', signJwt(key, { iss: ISSUER })]) expect(() => readHint(hint)).toThrow(GrantError)
  })
})
