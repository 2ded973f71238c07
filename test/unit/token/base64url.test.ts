import { expect, it } from 'vitest'
import type { Refusal } from '../../../src/errors.ts'
import { createIssuerIndex } from '../../../src/token/issuers.ts'
import { verifyJwt } from '../../../src/token/jwt.ts'
import { encode } from '../../fakes/signer.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** Whether the third part of a token passes as base64url: if it does, the next thing wrong is its issuer. */
async function passes(part: string): Promise<boolean> {
  const token = `${encode({ alg: 'RS256' })}.${encode({ iss: 'nobody' })}.${part}`
  const verifying = async () => verifyJwt(token, createIssuerIndex([]), 0)
  const code = await verifying().then(
    () => 'ok',
    (error: unknown) => (error as Refusal).code,
  )
  expect(['token_malformed', 'issuer_unknown']).toContain(code)
  return code === 'issuer_unknown'
}

it('exactly what an encoder produces passes, for every length and last character', async () => {
  for (let length = 0; length <= 9; length += 1) {
    for (const last of [...ALPHABET, '=', '+', '/', ' ', '\n', '.', 'é', '\0']) {
      const part = length === 0 ? '' : `${'Zm9vYmFyYg'.slice(0, length - 1)}${last}`
      if (part.includes('.')) continue
      const canonical = part !== '' && Buffer.from(part, 'base64url').toString('base64url') === part
      expect([part, await passes(part)]).toEqual([part, canonical])
    }
  }
})
