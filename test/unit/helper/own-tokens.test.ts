import { describe, expect, it } from 'vitest'
import { createOwnTokens } from '../../../src/helper/own-tokens.ts'
import { createFakeClock } from '../../fakes/clock.ts'

function setScene(expiresIn: number | undefined) {
  const clock = createFakeClock()
  const failed: string[] = []
  const ownTokens = createOwnTokens({ clock, onRenewalFailed: (client, code) => failed.push(`${client} ${code}`) })
  let fetched = 0
  const fetch = () => {
    fetched += 1
    const tokens = { access_token: `t${fetched}`, token_type: 'bearer' as const, refresh_token: 'r' }
    return Promise.resolve(expiresIn === undefined ? tokens : { ...tokens, expires_in: expiresIn })
  }
  return { clock, failed, ownTokens, fetch, count: () => fetched }
}

describe('the tokens of a client itself', () => {
  it('are not kept when nobody says how long they are good', async () => {
    const { ownTokens, fetch, count } = setScene(undefined)
    await ownTokens.get('a', 'x', fetch)
    expect(await ownTokens.get('a', 'x', fetch)).toEqual({ access_token: 't2', token_type: 'bearer' })
    expect(count()).toBe(2)
  })

  it('are those of one client and one question', async () => {
    const { ownTokens, fetch, count } = setScene(600)
    await ownTokens.get('a', 'x', fetch)
    await ownTokens.get('b', 'x', fetch)
    await ownTokens.get('a', 'y', fetch)
    expect(await ownTokens.get('a', 'x', fetch)).toMatchObject({ access_token: 't1', expires_in: 600 })
    expect(count()).toBe(3)
  })

  it('come without the refresh token that nobody asked for', async () => {
    const { ownTokens, fetch } = setScene(600)
    expect(await ownTokens.get('a', 'x', fetch)).not.toHaveProperty('refresh_token')
    expect(await ownTokens.get('a', 'x', fetch)).not.toHaveProperty('refresh_token')
  })

  it('are a thousand at most: the oldest go', async () => {
    const { ownTokens, fetch, count } = setScene(600)
    for (let i = 0; i < 1_001; i += 1) await ownTokens.get('a', String(i), fetch)
    await ownTokens.get('a', '1000', fetch)
    expect(count()).toBe(1_001)
    await ownTokens.get('a', '0', fetch)
    expect(count()).toBe(1_002)
  })

  it('that failed to be renewed are tried again after five seconds', async () => {
    const { clock, ownTokens, fetch, failed } = setScene(600)
    await ownTokens.get('a', 'x', fetch)
    clock.advance(481_000)
    let tries = 0
    const fail = () => {
      tries += 1
      return Promise.reject(new Error('secret text'))
    }
    for (let i = 0; i < 3; i += 1) await ownTokens.get('a', 'x', fail)
    clock.advance(5_000)
    await ownTokens.get('a', 'x', fail)
    await Promise.resolve()
    expect(tries).toBe(2)
    await expect.poll(() => failed).toEqual(['a internal_error', 'a internal_error'])
  })
})
