/** What an endpoint for tokens answered. */
export interface TokenAnswer {
  readonly status: number
  /** Empty where nothing came. */
  readonly body: Readonly<Record<string, unknown>>
  readonly text: string
  readonly headers: Headers
}

export async function readAnswer(response: Response): Promise<TokenAnswer> {
  const text = await response.text()
  const body = text === '' ? {} : (JSON.parse(text) as TokenAnswer['body'])
  return { status: response.status, body, text, headers: response.headers }
}

/** Sends parameters in form encoding. */
export async function postForm(
  url: string,
  parameters: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>> = {},
): Promise<TokenAnswer> {
  return readAnswer(await fetch(url, { method: 'POST', body: new URLSearchParams(parameters), headers }))
}

/** Sends a token request to a helper, by its origin. */
export const requestToken = (
  helper: string,
  parameters: Readonly<Record<string, string>>,
  headers?: Readonly<Record<string, string>>,
) => postForm(`${helper}/oauth2/token`, parameters, headers)

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
