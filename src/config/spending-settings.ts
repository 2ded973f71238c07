/** The settings of spending grants once: what replicas share, how refresh tokens are sealed, limits for each client. */
import * as v from 'valibot'
import { count, duration, flag, list, oneOf, pattern, secret, section, text } from './fields.ts'

const redis = section(
  'A Redis that all replicas use: 2.6 or later, or what speaks like it, at one address, without cluster mode.',
  {
    url: pattern(
      'Where it is. `rediss:` for TLS.',
      'redis:// or rediss:// with a host and a port alone, such as rediss://redis.internal:6379',
      /^rediss?:\/\/(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/,
    ),
    username: v.optional(text('The user (ACL). Default: the default user.', 256)),
    password: v.optional(
      secret('Where the password is. Read for each connection, so that it can be rotated in place.'),
    ),
    database: v.optional(count('The number of the database.', 0, 1_000_000), 0),
    key_prefix: v.optional(
      pattern(
        'Begins every key. Sidecars that spend the same grants need the same one.',
        'letters, digits, ".", "_", ":" and "-"',
        /^[A-Za-z0-9._:-]{1,64}$/,
      ),
      'bearward',
    ),
    ca_file: v.optional(
      text('For rediss: the certificate authorities to trust, in PEM. Default: the well-known ones.'),
    ),
    server_name: v.optional(
      text('For rediss: the name that its certificate must have. Default: the host of the URL.', 253),
    ),
    certificate_file: v.optional(text('For rediss: the certificate to show to it, in PEM.')),
    key_file: v.optional(text('The private key of that certificate, in PEM.')),
    connect_timeout: v.optional(duration('Time to connect, authentication included.', '50ms', '30s'), '1s'),
    command_timeout: v.optional(duration('For one command; then the connection is given up.', '50ms', '30s'), '1s'),
    insecure_plaintext: v.optional(
      flag(
        'Allow redis: beyond this machine. Whoever is in between reads the password and can forge or delete leases.',
      ),
      false,
    ),
  },
)

export const store = section('What replicas share, so that a grant is spent once among all of them.', {
  redis,
  on_failure: v.optional(
    oneOf(
      'While it cannot be reached. `local`: spend all the same; another replica may spend the same grant, too. `refuse`: ' +
        'answer 503, spend nothing.',
      ['local', 'refuse'],
    ),
    'local',
  ),
})

export const sealing = section(
  'Sealed refresh tokens: callers get and store a text that only sidecars with the key can open.',
  {
    key_files: list(
      'Files with a key each: 32 random bytes in base64 or hex (`openssl rand -base64 32`). The first one seals, all of ' +
        'them open. Add a new key at the end everywhere before it becomes the first.',
      text('A file with a key.'),
      1,
      16,
    ),
    bind_to_caller: v.optional(
      flag(
        'Only the caller that a token was sealed for may use it; else every caller of the client. Tokens that were ' +
          'sealed without are refused from then on.',
      ),
      false,
    ),
    accept_unsealed: v.optional(
      flag('Take refresh tokens that were not sealed as they are: for the time of changing over, and no longer.'),
      false,
    ),
  },
)

/** Settings of each client. */
export const spending = {
  replay_window: v.optional(
    duration(
      'How long the same request of the same caller gets the same answer again, after a refresh or a code was spent. ' +
        'No longer than the issuer itself allows a second use, because it hides such a use from it.',
      '0s',
      '60s',
    ),
    '0s',
  ),
  rate_limit: v.optional(
    section('Most requests to the helper for this client; then 429.', {
      per_second: v.optional(count('In the long run.', 1, 100_000), 100),
      burst: v.optional(count('At once.', 1, 100_000), 200),
    }),
    {},
  ),
}
