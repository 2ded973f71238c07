import { expect } from 'vitest'
import type { FakeSidecar } from './sidecar.ts'
import type { TokenAnswer } from './token-request.ts'

/** What comes of a sign-in with every scope at a fake provider. */
export const ALL_TOKENS = {
  access_token: expect.stringMatching(/^eyJ/) as string,
  refresh_token: expect.stringMatching(/^rt_/) as string,
  id_token: expect.stringMatching(/^eyJ/) as string,
  token_type: 'Bearer',
}

/** An access token opens the API behind the sidecar. */
export async function expectToOpen({ proxy }: Pick<FakeSidecar, 'proxy'>, accessToken: unknown): Promise<void> {
  const response = await fetch(`${proxy}/a`, { headers: { authorization: `Bearer ${String(accessToken)}` } })
  expect(response.status).toBe(200)
}

/** Everything was handed out, and what came opens the API behind the sidecar. */
export async function expectAllTokens(
  sidecar: FakeSidecar,
  { status, body }: Pick<TokenAnswer, 'status' | 'body'>,
  all: Readonly<Record<string, unknown>> = ALL_TOKENS,
): Promise<void> {
  expect(body).toMatchObject(all)
  expect(status).toBe(200)
  await expectToOpen(sidecar, body['access_token'])
}

/** An answer of a token endpoint must not be stored (RFC 6749 §5.1). */
export function expectUnstored<A extends Pick<TokenAnswer, 'headers'>>(answer: A): A {
  expect(answer.headers.get('cache-control')).toBe('no-store')
  return answer
}
