import type { Config } from './config/schema.ts'
import { readSharedSecret } from './config/secrets.ts'
import { isSameSecret, type KnownCaller } from './helper/caller.ts'
import type { ProcessContext } from './parts.ts'
import { createIssuerIndex, type AcceptedIssuer } from './token/issuers.ts'
import { verifyJwt } from './token/jwt.ts'

type CallerSettings = Config['helper']['callers'][string]
type Recognise = KnownCaller['recognise']

interface NamedIssuer {
  readonly settings: { readonly name: string }
  readonly accepted: AcceptedIssuer
}

/**
 * Builds the callers that may use the token helper.
 *
 * @throws ConfigError when a shared secret cannot be read or could be guessed
 */
export function createConfiguredCallers(
  context: ProcessContext & { readonly config: Config },
  issuers: readonly NamedIssuer[],
): readonly KnownCaller[] {
  return Object.entries(context.config.helper.callers).map(([name, settings]) => ({
    name,
    clients: settings.clients && new Set(settings.clients),
    recognise: recogniseSecret(settings, context) ?? recogniseSubject(settings, context, issuers),
  }))
}

function recogniseSecret({ shared_secret: secret }: CallerSettings, { env }: ProcessContext): Recognise | undefined {
  if (secret === undefined) return undefined
  let known = readSharedSecret(secret, env)
  return (shown) => {
    try {
      known = readSharedSecret(secret, env)
    } catch {
      // While it cannot be read, the last one that could be is good.
    }
    return isSameSecret(shown, known)
  }
}

/** Of a token that is verified like any other, but for another audience. */
function recogniseSubject(
  { service_accounts: accounts }: CallerSettings,
  { config, clock }: ProcessContext & { readonly config: Config },
  issuers: readonly NamedIssuer[],
): Recognise {
  const issuer = issuers.find(({ settings }) => settings.name === accounts?.issuer) ?? issuers[0]
  if (accounts === undefined || issuer === undefined) throw new TypeError('a caller that shows nothing')
  const { keys, expectation } = issuer.accepted
  const audience = { claim: 'aud', values: [accounts.audience] } as const
  const index = createIssuerIndex([{ keys, expectation: { ...expectation, audience } }])
  const subjects = new Set(accounts.subjects)
  return async (shown) => {
    if (shown.length > config.limits.token_bytes) return false
    const { claims } = await verifyJwt(shown, index, clock.now())
    return typeof claims['sub'] === 'string' && subjects.has(claims['sub'])
  }
}
