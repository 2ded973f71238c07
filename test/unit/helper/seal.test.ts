import { randomBytes } from 'node:crypto'
import { CompactEncrypt, decodeProtectedHeader } from 'jose'
import { describe, expect, it } from 'vitest'
import { createSealer, type SealerOptions } from '../../../src/helper/seal.ts'

const [KEY, OTHER_KEY] = [randomBytes(32), randomBytes(32)]
const TOKEN = 'canary-refresh-token-3b19'
const FOR = { client: 'web', caller: 'a' }

const create = (options: Partial<SealerOptions> = {}) =>
  createSealer({ keys: [KEY], bindToCaller: false, acceptUnsealed: false, ...options })

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'opened',
    (error: unknown) => {
      const {
        code,
        status,
        error: oauth,
        detail,
      } = error as { code: string; status: number; error: string; detail?: { reason: string } }
      expect([status, oauth]).toEqual([400, 'invalid_grant'])
      return detail === undefined ? code : `${code} ${detail.reason}`
    },
  )

describe('a sealed refresh token', () => {
  it('opens where it was sealed, and says nothing to anybody else', async () => {
    const sealer = create()
    const sealed = await sealer.seal(TOKEN, FOR)
    expect((await sealer.open(sealed, FOR)).refreshToken).toBe(TOKEN)
    expect(decodeProtectedHeader(sealed)).toEqual({
      alg: 'dir',
      enc: 'A256GCM',
      typ: 'bearward-rt',
      kid: expect.any(String) as string,
    })
    const parts = sealed.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'))
    expect(sealed + parts.join('')).not.toMatch(/canary|web/)
    expect(await sealer.seal(TOKEN, FOR)).not.toBe(sealed)
  })

  it('carries along whom it is about', async () => {
    expect(await create().open(await create().seal(TOKEN, FOR, 'digest'), FOR)).toEqual({
      refreshToken: TOKEN,
      subject: 'digest',
      isCurrent: true,
    })
  })

  it('opens for any caller of its client, unless it is bound to one', async () => {
    const loose = await create().seal(TOKEN, FOR)
    expect((await create().open(loose, { ...FOR, caller: 'b' })).refreshToken).toBe(TOKEN)
    const strict = create({ bindToCaller: true })
    const bound = await strict.seal(TOKEN, FOR)
    expect((await strict.open(bound, FOR)).refreshToken).toBe(TOKEN)
    expect(await codeOf(strict.open(bound, { ...FOR, caller: 'b' }))).toBe('refresh_token_seal_invalid other_caller')
    // A binding holds when the setting is gone, and what has none is not taken for bound.
    expect(await codeOf(create().open(bound, { ...FOR, caller: 'b' }))).toBe('refresh_token_seal_invalid other_caller')
    expect(await codeOf(strict.open(loose, FOR))).toBe('refresh_token_seal_invalid other_caller')
  })

  it('does not open for another client', async () => {
    const sealed = await create().seal(TOKEN, FOR)
    expect(await codeOf(create().open(sealed, { ...FOR, client: 'native' }))).toBe(
      'refresh_token_seal_invalid other_client',
    )
  })

  it('does not open with another key', async () => {
    const sealed = await create().seal(TOKEN, FOR)
    expect(await codeOf(create({ keys: [OTHER_KEY] }).open(sealed, FOR))).toBe('refresh_token_seal_invalid key_unknown')
  })

  it('opens with a key that seals no more, and not when that is gone', async () => {
    const sealed = await create().seal(TOKEN, FOR)
    const rotated = create({ keys: [OTHER_KEY, KEY] })
    expect((await rotated.open(sealed, FOR)).refreshToken).toBe(TOKEN)
    const renewed = await rotated.seal(TOKEN, FOR)
    expect((await create({ keys: [OTHER_KEY] }).open(renewed, FOR)).refreshToken).toBe(TOKEN)
    expect(await codeOf(create().open(renewed, FOR))).toBe('refresh_token_seal_invalid key_unknown')
  })

  it('does not open when any character of it is changed', async () => {
    const sealed = await create().seal(TOKEN, FOR)
    const changed = Array.from(
      sealed,
      (character, i) => sealed.slice(0, i) + (character === 'A' ? 'B' : 'A') + sealed.slice(i + 1),
    )
    const outcomes = await Promise.all(changed.map((text) => codeOf(create().open(text, FOR))))
    // The last character of base64url may stand for the same bytes; the bytes are then those that were sealed.
    const opened = changed.filter((_text, i) => outcomes[i] === 'opened')
    for (const text of opened) {
      const bytes = (one: string) => one.split('.').map((part) => Buffer.from(part, 'base64url').toString('hex'))
      expect(bytes(text)).toEqual(bytes(sealed))
    }
    expect(opened.length).toBeLessThan(4)
  })

  it('is not what another program sealed with the same key', async () => {
    const foreign = await new CompactEncrypt(Buffer.from(JSON.stringify({ rt: TOKEN, client: 'web' })))
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
      .encrypt(KEY)
    expect(await codeOf(create().open(foreign, FOR))).toBe('refresh_token_not_sealed')
  })

  it.each(['A128CBC-HS256', 'A128GCM'])('is not one with %s', async (enc) => {
    const { kid } = decodeProtectedHeader(await create().seal(TOKEN, FOR))
    const foreign = await new CompactEncrypt(Buffer.from(JSON.stringify({ rt: TOKEN, client: 'web' })))
      .setProtectedHeader({ alg: 'dir', enc, typ: 'bearward-rt', kid: kid as string })
      .encrypt(enc === 'A128GCM' ? KEY.subarray(0, 16) : KEY)
    expect(await codeOf(create().open(foreign, FOR))).toBe('refresh_token_seal_invalid tampered')
  })
})

describe('a refresh token that is not sealed', () => {
  const others = [
    'opaque',
    'a.b.c',
    'a.b.c.d.e',
    '',
    `${Buffer.from('{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}').toString('base64url')}.a.b.c.d`,
  ]

  it.each(others)('is refused: %j', async (text) => {
    expect(await codeOf(create().open(text, FOR))).toBe('refresh_token_not_sealed')
  })

  it.each(others)('is taken as it is when that is allowed: %j', async (text) => {
    expect((await create({ acceptUnsealed: true }).open(text, FOR)).refreshToken).toBe(text)
  })

  it('is not what merely calls itself sealed, even then', async () => {
    const header = Buffer.from('{"alg":"dir","enc":"A256GCM","typ":"bearward-rt"}').toString('base64url')
    expect(await codeOf(create({ acceptUnsealed: true }).open(`${header}.a.b.c.d`, FOR))).toBe(
      'refresh_token_seal_invalid key_unknown',
    )
  })
})

it.each([[[]], [[randomBytes(31)]], [[KEY, randomBytes(33)]]])('keys that are none make no sealer', (keys) => {
  expect(() => create({ keys })).toThrow(TypeError)
})
