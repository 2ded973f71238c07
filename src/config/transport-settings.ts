/** The settings of connections: to the backend, from callers, and the limits on them. */
import * as v from 'valibot'
import { address, addressOrSocket, upstreamUrl } from './address-fields.ts'
import { count, duration, flag, list, section, size, text } from './fields.ts'

export const upstream = section('The backend. May be written as the URL alone.', {
  url: upstreamUrl(
    'Origin of the backend: http://127.0.0.1:3000 (not localhost), https://, unix:/PATH; for HTTP/2 and gRPC h2c:// or, over TLS, h2://.',
  ),
  ca_file: v.optional(
    text('For https and h2: the certificate authorities to trust, in PEM. Default: those of the system.'),
  ),
  server_name: v.optional(
    text('For https and h2: the name that its certificate must have. Default: the host of the URL.', 253),
  ),
  certificate_file: v.optional(text('For https and h2: the certificate to show to it, in PEM.')),
  key_file: v.optional(text('The private key of that certificate, in PEM.')),
  connect_timeout: v.optional(duration('Time to connect; then 504.', '50ms', '60s'), '3s'),
  response_timeout: v.optional(
    duration('Time until the response header, or until a connection is free; then 504.', '1s', '1h'),
    '60s',
  ),
  total_timeout: v.optional(
    duration(
      'Longest time for a request in all, both bodies included and whatever moves meanwhile; then 504, or the response is ' +
        'cut. Not for WebSockets. 0s for no limit.',
      '0s',
      '24h',
    ),
    '0s',
  ),
  idle_timeout: v.optional(
    duration(
      'Longest silence within a response body, streams of events and of gRPC aside; then it is cut. 0s for no limit.',
      '0s',
      '24h',
    ),
    '15m',
  ),
  connections: v.optional(count('Most connections to the backend. Further requests wait for one.', 1, 10_000), 256),
})

export const listen = section('The addresses to listen on. Port 0 picks any free one.', {
  proxy: v.optional(address('Traffic.'), '0.0.0.0:8080'),
  tls: v.optional(
    section('TLS on the proxy listener. The files are read again when they change; connections go on.', {
      certificate_file: text('The certificate with its chain, in PEM.'),
      key_file: text('Its private key, in PEM.'),
      client_ca_file: v.optional(
        text('Certificate authorities of callers, in PEM. When set, every caller must show a certificate of theirs.'),
      ),
    }),
  ),
  ops: v.optional(address('Probes (/livez, /readyz, /startupz) and /metrics.'), '0.0.0.0:9090'),
  helper: v.optional(
    addressOrSocket(
      'The token helper. Not opened unless a client is configured. A socket has the mode 0660: whoever is its owner or in ' +
        'its group may connect.',
    ),
    '127.0.0.1:8181',
  ),
  trusted_proxies: v.optional(
    list(
      'Peers whose X-Forwarded-* header fields are continued rather than replaced.',
      text('Address or CIDR range.', 60),
    ),
    [],
  ),
  insecure_helper_address: v.optional(
    flag(
      'Allow the helper on an address beyond loopback without `helper.callers`. Whoever reaches it can spend grants as the ' +
        'configured clients.',
    ),
    false,
  ),
})

export const limits = section('Limits on what callers may send.', {
  token_bytes: v.optional(size('Largest access token; then 401.', '1KiB', '64KiB'), '16KiB'),
  header_bytes: v.optional(size('Largest request header; then 431.', '4KiB', '256KiB'), '32KiB'),
  target_bytes: v.optional(size('Longest request target; then 400.', '256B', '64KiB'), '8KiB'),
  headers_timeout: v.optional(duration('Time to send the request header; then 408.', '1s', '5m'), '15s'),
  keep_alive_timeout: v.optional(
    duration('How long an idle connection is kept. Longer than the load balancer keeps its own.', '1s', '1h'),
    '75s',
  ),
  header_count: v.optional(count('Most header fields of a request; then 431.', 20, 10_000), 128),
  body_timeout: v.optional(
    duration(
      'Longest silence of a caller within the body of a request; then 408, or the connection is cut.',
      '1s',
      '24h',
    ),
    '60s',
  ),
  send_timeout: v.optional(
    duration('How long a caller may take nothing of its response; then it is cut.', '1s', '24h'),
    '60s',
  ),
  requests_in_flight: v.optional(
    count('Most requests served at a time; further ones get 503 with Retry-After.', 1, 1_000_000),
    2048,
  ),
  connections: v.optional(
    count('Most connections of callers; further ones are closed unanswered.', 1, 1_000_000),
    10_000,
  ),
  concurrent_streams: v.optional(
    count('Most requests at a time on one connection of HTTP/2; further ones are refused unseen.', 1, 10_000),
    256,
  ),
  token_cache_entries: v.optional(
    count(
      'How many verified tokens are remembered; 0 for none. Past it, a token that comes again takes the place of the least recently used.',
      0,
      1_000_000,
    ),
    10_000,
  ),
  token_cache_bytes: v.optional(
    size('Memory for verified tokens, reckoned generously; a common one takes 2 to 3 KiB.', '1MiB', '4096MiB'),
    '32MiB',
  ),
})

export const websocket = section('WebSockets (RFC 6455), to upstreams of HTTP/1.1.', {
  enabled: v.optional(flag('Let callers switch to a WebSocket, under the same rules as any request.'), true),
  close_at_token_expiry: v.optional(
    flag('Close a WebSocket (1008) when the token that opened it expires, clock tolerance included.'),
    true,
  ),
})
