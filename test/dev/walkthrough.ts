/** The ports on 127.0.0.1 of everything that `npm start` runs. */
export interface Ports {
  /** Traffic, through bearward. */
  readonly proxy: number
  /** Probes and metrics of bearward. */
  readonly ops: number
  /** Token helper of bearward. */
  readonly helper: number
  /** The authorization server. */
  readonly issuer: number
  /** The sample API behind bearward. */
  readonly api: number
}

/** One thing to try. */
export interface Step {
  /** What it shows. */
  readonly title: string
  /** One line for a POSIX shell. Lines share variables, so they belong into one shell, in order. */
  readonly command: string
  /** Texts that its output holds. */
  readonly expect: readonly string[]
}

/** The client that gets tokens for itself. Its secret is no secret: it is good for this machine, until Ctrl-C. */
export const SERVICE_CLIENT = { id: 'service', secret: 'for-development-only' }

/** Takes a member out of an answer without a tool that a machine may lack. */
const member = (name: string) => String.raw`sed 's/.*"${name}":"\([^"]*\)".*/\1/'`
const ACCESS_TOKEN = member('access_token')

/** What to try, as lines for a shell: tokens verified, refused and refreshed. */
export function walkthrough({ proxy, ops, helper, issuer }: Ports): readonly Step[] {
  const at = (port: number, path: string) => `http://127.0.0.1:${port}${path}`
  const call = (path: string, ...fields: string[]) =>
    ["curl -sS -i -w '\\n'", ...fields.map((field) => `-H ${field}`), at(proxy, path)].join(' ')
  const { id, secret } = SERVICE_CLIENT
  return [
    {
      title: 'Get an access token, straight from the authorization server.',
      command:
        `TOKEN=$(curl -sS -u ${id}:${secret} -d grant_type=client_credentials -d scope=read:orders ` +
        `${at(issuer, '/token')} | ${ACCESS_TOKEN}); echo "$TOKEN"`,
      expect: ['eyJ'],
    },
    {
      title: 'Call the API with it: the API gets the claims as header fields, and no token.',
      command: call('/orders', '"Authorization: Bearer $TOKEN"'),
      expect: ['200 OK', '"x-auth-client-id": "service"', '"x-auth-scope": "read:orders"', '"x-auth-org": "org_1"'],
    },
    {
      title: 'Without a token.',
      command: call('/orders'),
      expect: ['401 Unauthorized', 'Bearer realm=', '"code":"credentials_missing"'],
    },
    {
      title: 'With something that is no token.',
      command: call('/orders', "'Authorization: Bearer garbage'"),
      expect: ['401 Unauthorized', 'error="invalid_token"', '"code":"token_malformed"'],
    },
    {
      title: 'With a token that expired an hour ago.',
      command: call('/orders', `"Authorization: Bearer $(curl -sS ${at(issuer, '/dev/expired-token')})"`),
      expect: ['401 Unauthorized', 'error="invalid_token"', '"code":"token_expired"'],
    },
    {
      title: 'A public path needs no token, and an identity that the caller made up does not arrive.',
      command: call('/public/hello', "'X-Auth-Subject: admin'"),
      expect: ['200 OK', '"identity": {}'],
    },
    {
      title: 'Sign in: the authorization server hands out a refresh token, as it would after a login.',
      command: `REFRESH_TOKEN=$(curl -sS ${at(issuer, '/dev/refresh-token')}); echo "$REFRESH_TOKEN"`,
      expect: [],
    },
    {
      title: 'Spend it at the helper, which adds the client secret. The answer has a new refresh token.',
      command:
        'ANSWER=$(curl -sS -d grant_type=refresh_token -d client_id=web -d "refresh_token=$REFRESH_TOKEN" ' +
        `${at(helper, '/oauth2/token')}); echo "$ANSWER"`,
      expect: ['"access_token":"eyJ', '"expires_in":600', '"refresh_token":"'],
    },
    {
      title: 'Call the API with the access token that came back.',
      command: call('/orders', `"Authorization: Bearer $(echo "$ANSWER" | ${ACCESS_TOKEN})"`),
      expect: ['200 OK', '"x-auth-subject": "user-1"', '"x-auth-client-id": "web"'],
    },
    {
      title: 'A device without a browser asks for a code, which its user is shown.',
      command: `DEVICE=$(curl -sS -d client_id=device -d scope=openid ${at(helper, '/oauth2/device_authorization')}); echo "$DEVICE"`,
      expect: ['"user_code":"', '"interval":5'],
    },
    {
      title: 'The user signs in elsewhere and says yes.',
      command: `curl -sS "${at(issuer, '/dev/approve')}?user_code=$(echo "$DEVICE" | ${member('user_code')})"`,
      expect: ['signed in'],
    },
    {
      title: 'The device waits for its tokens in one request: the helper asks the issuer as often as that wants.',
      command:
        "curl -sS -w '\\n' -d grant_type=urn:ietf:params:oauth:grant-type:device_code -d client_id=device -d wait=30 " +
        `-d "device_code=$(echo "$DEVICE" | ${member('device_code')})" ${at(helper, '/oauth2/token')}`,
      expect: ['"access_token":"eyJ', '"id_token":"eyJ'],
    },
    {
      title: 'What has been counted.',
      command: `curl -sS ${at(ops, '/metrics')} | grep -E '^bearward_(requests|helper_exchanges)_total'`,
      expect: ['rule="default",code="ok"', 'code="token_expired"', 'client="web",grant="refresh_token",code="ok"'],
    },
    {
      title: 'Whether it is ready for traffic.',
      command: `curl -sS ${at(ops, '/readyz')}`,
      expect: ['ok'],
    },
  ]
}

/** The steps as text that can be pasted as a whole, too: all but the commands are comments. */
export function renderWalkthrough(steps: readonly Step[]): string {
  return steps
    .map(({ title, command, expect }, i) => {
      const shows = expect.length === 0 ? '' : `#    Shows: ${expect.join('  …  ')}\n`
      return `# ${i + 1}. ${title}\n${shows}${command}\n`
    })
    .join('\n')
}
