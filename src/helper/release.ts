import type { TokenEndpointResponse } from 'oauth4webapi'
import { GrantError, Unavailable, type Detail } from '../errors.ts'
import { backoffMs } from '../util/backoff.ts'
import type { Clock } from '../util/clock.ts'
import type { HelperClient } from './clients.ts'
import { notValidated, validationFailed } from './grant-errors.ts'
import type { GrantRequest } from './grants.ts'
import { readHint, type Subject, type Subjects } from './subjects.ts'
import { validateTokens, type Validated, type ValidationContext } from './validate.ts'

/** What became of an answer of the issuer, for one log line and one count. */
export interface AnswerValidated {
  readonly client: string
  readonly grant: GrantRequest['type']
  /** `refused`: a check failed; `keys_unavailable`: it could not be told in time. */
  readonly result: 'valid' | 'refused' | 'keys_unavailable'
  /** How long it was held back, in milliseconds; 0 when the keys were there. */
  readonly heldMs: number
  readonly validated: Omit<Validated, 'about'> | undefined
  readonly detail: Detail | undefined
}

export interface ReleaseOptions {
  readonly subjects: Subjects
  /** How long an answer is held while the keys to validate it are not available, in milliseconds; 0 to 120 s. */
  readonly waitMs: number
  readonly clock: Clock
  /** Takes a refresh token back at the issuer (RFC 7009). */
  readonly revoke: (client: HelperClient, refreshToken: string) => Promise<void>
  readonly onValidated: (outcome: AnswerValidated) => void
  /** `failure`: why it was not revoked; absent when it was. */
  readonly onRevoked: (client: string, failure: string | undefined) => void
}

/** An answer of the issuer that nobody has seen yet. */
export interface Answer {
  readonly response: TokenEndpointResponse
  readonly client: HelperClient
  readonly grant: GrantRequest
}

/** The last gate before tokens are handed out. */
export interface Release {
  /**
   * Validates an answer.
   *
   * @returns a promise that rejects with GrantError `token_validation_failed` or `tokens_not_validated`
   */
  check(answer: Answer): Promise<void>
  /**
   * Holds an answer that was checked against what one caller knows about its grant.
   *
   * @throws GrantError `token_validation_failed`
   */
  compare(answer: Answer, subject: Subject | undefined): void
  /** Takes back, in the background, the refresh token of an answer that could not even be validated. */
  discard(answer: Omit<Answer, 'response'>, refreshToken: string): void
  /** Takes note of whom a refresh token is about. */
  learn(client: HelperClient, refreshToken: string, subject: Subject): void
  /** Whom an answer that was checked is about, if that is known. */
  subjectOf(answer: Answer): Subject | undefined
}

const RETRY = { baseMs: 250, maxMs: 2_000 }

/**
 * Creates the last gate: what it lets through passed validation. While the keys for that are not available, the answer is
 * held and validated again. When it fails, the refresh token that nobody is to have is taken back, in the background.
 */
export function createRelease(options: ReleaseOptions): Release {
  return {
    check: (answer) => check(answer, options),
    compare(answer, subject) {
      const { id_token: idToken } = answer.response
      if (subject === undefined || idToken === undefined || readHint(idToken) === subject) return
      takeBack(answer, answer.response.refresh_token, options)
      throw validationFailed('id_token_hint')
    },
    discard: (answer, refreshToken) => takeBack(answer, refreshToken, options),
    learn: ({ name }, refreshToken, subject) => options.subjects.remember(name, refreshToken, subject),
    subjectOf({ client, grant, response }) {
      const spent = spentRefreshToken(grant)
      const known = spent === undefined ? undefined : options.subjects.recall(client.name, spent)
      return readHint(response.id_token) ?? known
    },
  }
}

async function check(answer: Answer, options: ReleaseOptions): Promise<void> {
  const { client, grant, response } = answer
  const { clock, subjects } = options
  const arrivedMs = clock.now()
  const spent = spentRefreshToken(grant)
  const subject = spent === undefined ? undefined : subjects.recall(client.name, spent)
  const report = (outcome: Pick<AnswerValidated, 'result' | 'validated' | 'detail'>) =>
    options.onValidated({ client: client.name, grant: grant.type, heldMs: clock.now() - arrivedMs, ...outcome })
  try {
    const { about = subject, ...validated } = await hold(response, { client, grant, subject }, options)
    report({ result: 'valid', validated, detail: undefined })
    const refreshToken = response.refresh_token ?? spent
    if (about !== undefined && refreshToken !== undefined) subjects.remember(client.name, refreshToken, about)
  } catch (error) {
    if (!(error instanceof GrantError)) throw error
    const isRefused = error.code === 'token_validation_failed'
    report({ result: isRefused ? 'refused' : 'keys_unavailable', validated: undefined, detail: error.detail })
    if (isRefused) takeBack(answer, response.refresh_token, options)
    throw error
  }
}

/** Validates again and again while the keys are missing, until the time is over. */
async function hold(
  response: TokenEndpointResponse,
  context: ValidationContext,
  { clock, waitMs }: ReleaseOptions,
): Promise<Validated> {
  const untilMs = clock.now() + waitMs
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await validateTokens(response, context)
    } catch (error) {
      const remainingMs = untilMs - clock.now()
      if (!mayPass(error)) throw error
      if (remainingMs <= 0) throw error instanceof Unavailable ? notValidated(error.detail) : error
      const delayMs = Math.min(remainingMs, backoffMs(attempt, RETRY))
      await new Promise<void>((resolve) => clock.after(delayMs, resolve))
    }
  }
}

/**
 * Whether a later attempt may end differently: without keys, and with a key that the issuer has not published, since it is
 * not asked for another one within ten seconds of the last.
 */
function mayPass(error: unknown): boolean {
  if (error instanceof Unavailable) return true
  return error instanceof GrantError && String(error.detail?.['check']).endsWith(' key_unknown')
}

function spentRefreshToken(grant: GrantRequest): string | undefined {
  return grant.type === 'refresh_token' ? grant.refreshToken : undefined
}

/** The one that was sent is not touched: its owner has it anyway. */
function takeBack(
  { client, grant }: Omit<Answer, 'response'>,
  refreshToken: string | undefined,
  { revoke, onRevoked }: ReleaseOptions,
): void {
  if (refreshToken === undefined || refreshToken === spentRefreshToken(grant)) return
  void revoke(client, refreshToken).then(
    () => onRevoked(client.name, undefined),
    (error: unknown) => onRevoked(client.name, describeFailure(error)),
  )
}

function describeFailure(error: unknown): string {
  if (!(error instanceof GrantError)) return 'unexpected error'
  const { code, detail } = error
  return typeof detail?.['reason'] === 'string' ? `${code}: ${detail['reason']}` : code
}
