import * as v from 'valibot'
import { duration, text } from './fields.ts'

/** The settings of an issuer about how its keys are fetched and how long they are used. */
export const keySettings = {
  jwks_refresh_interval: v.optional(
    duration(
      'Longest time between fetches of the keys; shorter, down to 5m, when the answer says so (`Cache-Control`, ' +
        '`Expires`). A key that the issuer removed works for at most this long while the issuer answers.',
      '30s',
      '24h',
    ),
    '10m',
  ),
  jwks_max_stale: v.optional(
    duration(
      'How much longer the keys are used while the issuer does not answer; after that, 503. So long can an outage of the ' +
        'issuer last unnoticed by callers, and so long does a key work that it removed during one.',
      '0s',
      '720h',
    ),
    '24h',
  ),
  jwks_seed_file: v.optional(
    text('A file with keys (a JWK Set) to begin with when the issuer does not answer at start. Used like stale keys.'),
  ),
  jwks_bearer_token_file: v.optional(
    text(
      'A file with a bearer token to show when fetching metadata and keys, such as a Kubernetes API server wants. Read ' +
        'for every fetch; sent to the host of `jwks_uri`, `discovery_url` or `issuer` alone, whichever is given first.',
    ),
  ),
  ca_file: v.optional(
    text(
      'A file with the certificates (PEM) of the authorities to trust for this issuer, instead of the well-known ones. ' +
        'Read for every request to the issuer.',
    ),
  ),
}
