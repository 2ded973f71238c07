import type { Random } from './random.ts'

/** What parsers stumble over. */
const PIECES = [
  ...['\r', '\n', '\r\n', '\r\n\r\n', '\r\n ', '\n\n', '\0', ' ', '\t', '\x0b', '\x0c', '\x7f', '\x80', '\xa0', '\xff'],
  ...[
    ':',
    ',',
    ';',
    '"',
    '\\',
    '/',
    '?',
    '#',
    '%',
    '+',
    '-',
    '0',
    '1',
    '9',
    'a',
    'f',
    'x',
    '=',
    '&',
    '_',
    '.',
    '..',
    '//',
  ],
  ...['chunked', 'identity', 'gzip', 'close', 'keep-alive', 'Upgrade', 'websocket', 'h2c', '100-continue', 'HTTP/1.0'],
  ...['Content-Length: 0\r\n', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding: x\r\n'],
  ...['Connection: close\r\n', 'Connection: X-Auth-Subject\r\n', 'Connection: upgrade\r\n', 'Upgrade: websocket\r\n'],
  ...['Expect: 100-continue\r\n', 'X-Auth-Subject: mallory\r\n', 'X_Auth_Roles: mallory\r\n', 'Host: evil.test\r\n'],
  ...[
    'Trailer: X\r\n',
    'TE: trailers\r\n',
    '0\r\n\r\n',
    '5\r\nhello\r\n',
    'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n',
    '%2e%2e',
  ],
  ...['HTTP/1.1 200 OK\r\n', 'HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', '204', '304'],
]

/** Changes a text in a few places. */
export function mutate(random: Random, text: string): string {
  let changed = text
  for (let left = random.below(4); left > 0; left -= 1) {
    const at = random.below(changed.length + 1)
    const length = random.pick([0, 0, 1, 1, 2, 5, 20])
    const other = random.below(changed.length + 1)
    const piece = random.chance(0.8) ? random.pick(PIECES) : changed.slice(other, other + random.below(40))
    changed = changed.slice(0, at) + piece + changed.slice(at + length)
  }
  return random.chance(0.05) ? changed.slice(0, random.below(changed.length)) : changed
}
