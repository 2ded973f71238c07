/** What a token endpoint answered. */
export interface TokenAnswer {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
  readonly headers: Headers
}

/** Sends a token request in form encoding to a helper, by its origin. */
export async function requestToken(
  helper: string,
  parameters: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>> = {},
): Promise<TokenAnswer> {
  const response = await fetch(`${helper}/oauth2/token`, {
    method: 'POST',
    body: new URLSearchParams(parameters),
    headers,
  })
  return { status: response.status, body: (await response.json()) as TokenAnswer['body'], headers: response.headers }
}

/** Spends a refresh token at a helper. */
export function refreshAt(helper: string, token: unknown, client = 'web', more: Readonly<Record<string, string>> = {}) {
  return requestToken(helper, {
    grant_type: 'refresh_token',
    refresh_token: String(token),
    client_id: client,
    ...more,
  })
}

/** The different answers among several. */
export function distinct(answers: readonly TokenAnswer[]): unknown[] {
  return [...new Set(answers.map(({ status, body }) => JSON.stringify([status, body])))].map(
    (text) => JSON.parse(text) as unknown,
  )
}

export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
