/** Requests whose end two parsers may see in different places, and what must become of each. */

/** What a smuggler hides behind a request: it must never arrive on its own. */
export const SMUGGLED = 'GET /admin HTTP/1.1\r\nHost: api.test\r\nX-Smuggled: 1\r\n\r\n'

export interface Framing {
  readonly what: string
  readonly bytes: string
}

/** What is forwarded, with the fields and the body that must arrive. */
export interface Forwarded extends Framing {
  readonly line?: string
  readonly fields: string
  readonly body: string
  readonly chunked: boolean
}

const HOST = 'Host: api.test\r\n'
const post = (fields: string, body: string) => `POST /public/a HTTP/1.1\r\n${HOST}${fields}\r\n${body}`
const END = '0\r\n\r\n'

/** Values of Transfer-Encoding that are not `chunked`, though some parser takes each of them for it. */
const CODINGS = [
  'xchunked',
  'x-chunked',
  'chunkedx',
  'chunk',
  'cow',
  'identity',
  'gzip',
  'deflate',
  'trailers',
  '',
  ' ',
  'chunked, identity',
  'identity, chunked',
  'gzip, chunked',
  'chunked, gzip',
  'chunked, chunked',
  'chunked,',
  ',chunked',
  'chunked;q=1',
  'chunked; foo=bar',
  'chunked chunked',
  'identity chunked',
  '"chunked"',
  "'chunked'",
  '(chunked)',
  'chun\tked',
  'chun ked',
  '\x0bchunked',
  'chunked\x0b',
  'chunked\t',
  '\x0cchunked',
  'chunked\x0c',
  '\x00chunked',
  'chunked\x00',
  '\x1fchunked',
  'chunked\x7f',
  'chunked\xa0',
  '\xa0chunked',
  '\x85chunked',
  'chun\xe2\x84\xaaed', // KELVIN SIGN, a k in lower case
  '\xef\xbd\x83hunked', // a full-width c
  '\xef\xbb\xbfchunked', // a byte order mark
  '\\x63hunked',
  '%63hunked',
]

/** Lines that hold a Transfer-Encoding for some parsers, and are malformed. */
const CODING_LINES = [
  'Transfer-Encoding : chunked\r\n',
  'Transfer-Encoding\t: chunked\r\n',
  ' Transfer-Encoding: chunked\r\n',
  '\tTransfer-Encoding: chunked\r\n',
  'X: a\r\n Transfer-Encoding: chunked\r\n',
  'X: a\r\n\tTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding:\r\n chunked\r\n',
  'Transfer-Encoding:\r\n\tchunked\r\n',
  'Transfer-Encoding: chunked\r\n \r\n',
  'Transfer-Encoding: chunked\r\n identity\r\n',
  'Transfer-Encoding\r\n: chunked\r\n',
  'Transfer-Encoding\r\n : chunked\r\n',
  'Transfer-Encoding chunked\r\n',
  'Transfer-Encoding\r\n',
  'Transfer Encoding: chunked\r\n',
  'Transfer-Encoding\x00: chunked\r\n',
  'Transfer-Encoding\x0b: chunked\r\n',
  '\x00Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding\xa0: chunked\r\n',
  'Transfer\xe2\x80\x90Encoding: chunked\r\n',
  'X: a\nTransfer-Encoding: chunked\r\n',
  'X: a\rTransfer-Encoding: chunked\r\n',
  'X: a\r\rTransfer-Encoding: chunked\r\n',
  'X: a\n\rTransfer-Encoding: chunked\r\n',
  'X: a\x00\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\n',
  'Transfer-Encoding: chunked\r',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n',
  'Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n',
  'Transfer-Encoding: chunked\r\ntransfer-encoding:\r\n',
  'Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n',
  ': chunked\r\n',
  ' : chunked\r\n',
]

/** Values of Content-Length that are no length, or not the only one. `N` stands for the length of what is smuggled. */
const LENGTHS = [
  '+N',
  '-N',
  '-0',
  '+0',
  '-1',
  '0xN',
  '0x0',
  '0b0',
  '0o0',
  'N, N',
  '0, N',
  'N, 0',
  'N,N',
  'N,',
  ',N',
  'N;0',
  'N N',
  '0 N',
  'N\t0',
  '1 0',
  '1_0',
  "1'0",
  'N.0',
  '0.0',
  '1e1',
  'Ne0',
  '',
  ' ',
  'abc',
  '0abc',
  'Nabc',
  '"N"',
  '"0"',
  '\x0bN',
  'N\x0b',
  '\x0cN',
  '\x00N',
  'N\x00',
  'N\xa0',
  '\xef\xbc\x90', // a full-width 0
  '\xd9\xa0', // an Arabic-Indic 0
  '18446744073709551615', // 2^64 - 1
  '18446744073709551616', // 2^64
  '18446744073709551617',
  '36893488147419103232', // 2^65
  '99999999999999999999999999',
  'NaN',
  'Infinity',
]

/** Lines with more than one length, or one that only some parsers see. */
const LENGTH_LINES = [
  'Content-Length: 0\r\nContent-Length: N\r\n',
  'Content-Length: N\r\nContent-Length: 0\r\n',
  'Content-Length: N\r\nContent-Length: N\r\n',
  'Content-Length: 0\r\ncontent-length: N\r\n',
  'Content-Length: 0\r\nContent-Length : N\r\n',
  'Content-Length : N\r\n',
  'Content-Length\t: N\r\n',
  'Content-Length\x00: N\r\n',
  ' Content-Length: N\r\n',
  'X: a\r\n Content-Length: N\r\n',
  'Content-Length: 0\r\n N\r\n',
  'Content-Length:\r\n N\r\n',
  'Content-Length: 0\nContent-Length: N\r\n',
  'Content-Length: N\n',
  'X: a\rContent-Length: N\r\n',
  'Content-Length\r\n',
  'Content Length: N\r\n',
]

/** Both, in either order: RFC 9112 §6.1 lets a server refuse them, and so does this one. */
const BOTH = [
  'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n',
  'Content-Length: 0\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\nContent-Length: 0\r\n',
  'Transfer-Encoding: chunked\r\nX: 1\r\nContent-Length: 4\r\n',
  'Content-Length: 4\r\nTransfer-Encoding: identity\r\n',
  'Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n',
  'Content-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n',
  'Content-Length: 4\r\nTransfer-Encoding:\r\n',
]

/** Bodies in chunks that are not. */
const CHUNKS = [
  '+0\r\n\r\n',
  '-0\r\n\r\n',
  '-1\r\n\r\n',
  '0x0\r\n\r\n',
  '0x1\r\na\r\n0\r\n\r\n',
  ' 1\r\na\r\n0\r\n\r\n',
  '\t1\r\na\r\n0\r\n\r\n',
  '\x0b1\r\na\r\n0\r\n\r\n',
  '1\n\na\n0\n\n',
  '1\na\r\n0\r\n\r\n',
  '1\r\na\n0\r\n\r\n',
  '1\ra\r0\r\r',
  '1\r\rna\r\n0\r\n\r\n',
  '1\r\nab\r\n0\r\n\r\n',
  '1\r\na0\r\n\r\n',
  '2\r\na\r\n0\r\n\r\n\r\n',
  '1\r\na\r\r\n0\r\n\r\n',
  '1 1\r\na\r\n0\r\n\r\n',
  '1.0\r\na\r\n0\r\n\r\n',
  '1,1\r\na\r\n0\r\n\r\n',
  '"1"\r\na\r\n0\r\n\r\n',
  'g\r\na\r\n0\r\n\r\n',
  '\r\n0\r\n\r\n',
  '10000000000000000\r\na',
  'ffffffffffffffff\r\n',
  '100000000\r\n',
  'fffffffffffffffff\r\na',
  '1\x00\r\na\r\n0\r\n\r\n',
  '1;\n2\r\na\r\n0\r\n\r\n',
  '1;a\nb\r\na\r\n0\r\n\r\n',
  '1;a\rb\r\na\r\n0\r\n\r\n',
  '1;a=\x00\r\na\r\n0\r\n\r\n',
  '1;a="\n"\r\na\r\n0\r\n\r\n',
  `1;${'a'.repeat(20_000)}\r\na\r\n0\r\n\r\n`,
  '0\n\n',
  '0\r\n\n',
  '0\r\nX : 1\r\n\r\n',
  '0\r\n X: 1\r\n\r\n',
  '0\r\nX: 1\n\r\n\r\n',
  '0\r\nX: a\x00\r\n\r\n',
  '0\r\nX\r\n\r\n',
  '0\r\n: x\r\n\r\n',
  '0\r\nContent-Length: 5\r\n\r\n',
  '0\r\nTransfer-Encoding: chunked\r\n\r\n',
  `0\r\nX: ${'a'.repeat(40_000)}\r\n\r\n`,
]

const head = (line: string, fields = HOST) => `${line}\r\n${fields}\r\n`

/** Heads that are no HTTP/1.1, or hold what no field or request line may hold. */
const HEADS: readonly (readonly [string, string])[] = [
  ['bare line feeds', `GET /public/a HTTP/1.1\nHost: api.test\n\n`],
  ['a bare line feed after the request line', `GET /public/a HTTP/1.1\nHost: api.test\r\n\r\n`],
  ['a bare line feed after a field', `GET /public/a HTTP/1.1\r\nHost: api.test\n\r\n`],
  ['a bare line feed at the end', `GET /public/a HTTP/1.1\r\nHost: api.test\r\n\n`],
  ['bare carriage returns', `GET /public/a HTTP/1.1\rHost: api.test\r\r`],
  ['a bare carriage return after the request line', `GET /public/a HTTP/1.1\rHost: api.test\r\n\r\n`],
  ['a carriage return in a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\rb\r\n`)],
  ['a carriage return at the end of a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\r\r\n`)],
  ['another byte behind the last carriage return', `GET /public/a HTTP/1.1\r\n${HOST}\rX${SMUGGLED}`],
  ['NUL in a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\x00b\r\n`)],
  ['NUL in a name', head('GET /public/a HTTP/1.1', `${HOST}X\x00: a\r\n`)],
  ['NUL in the target', head('GET /public/\x00a HTTP/1.1')],
  ['NUL in the method', head('G\x00ET /public/a HTTP/1.1')],
  ['NUL before the request', `\x00${head('GET /public/a HTTP/1.1')}`],
  ['a control character in a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\x01b\r\n`)],
  ['a backspace in a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\x08b\r\n`)],
  ['DEL in a value', head('GET /public/a HTTP/1.1', `${HOST}X: a\x7fb\r\n`)],
  ['a folded field', head('GET /public/a HTTP/1.1', `${HOST}X: a\r\n b\r\n`)],
  ['a field folded with a tab', head('GET /public/a HTTP/1.1', `${HOST}X: a\r\n\tb\r\n`)],
  ['a folded Host', head('GET /public/a HTTP/1.1', `Host:\r\n api.test\r\n`)],
  ['a folded request line', `GET /public/a\r\n HTTP/1.1\r\n${HOST}\r\n`],
  ['a space before the first field', `GET /public/a HTTP/1.1\r\n ${HOST}\r\n`],
  ['an empty first line of fields', `GET /public/a HTTP/1.1\r\n \r\n${HOST}\r\n`],
  ['a space before the colon', head('GET /public/a HTTP/1.1', `${HOST}X : a\r\n`)],
  ['a space before the colon of Host', head('GET /public/a HTTP/1.1', `Host : api.test\r\n`)],
  ['a field without a name', head('GET /public/a HTTP/1.1', `${HOST}: a\r\n`)],
  ['a field of a space', head('GET /public/a HTTP/1.1', `${HOST} : a\r\n`)],
  ['a field without a colon', head('GET /public/a HTTP/1.1', `${HOST}X\r\n`)],
  ['a name with a space', head('GET /public/a HTTP/1.1', `${HOST}X Y: a\r\n`)],
  ['a name with quotes', head('GET /public/a HTTP/1.1', `${HOST}"X": a\r\n`)],
  ['a name with a slash', head('GET /public/a HTTP/1.1', `${HOST}X/Y: a\r\n`)],
  ['a name beyond ASCII', head('GET /public/a HTTP/1.1', `${HOST}X\xe4: a\r\n`)],
  ['no target', head('GET  HTTP/1.1')],
  ['CONNECT', head('CONNECT api.test:443 HTTP/1.1')],
  ['CONNECT with a path', head('CONNECT /public/a HTTP/1.1')],
  ['CONNECT with a body', `${head('CONNECT api.test:443 HTTP/1.1', `${HOST}Content-Length: 5\r\n`)}hello`],
  ['an authority for a target', head('GET api.test:80 HTTP/1.1')],
  ['a relative target', head('GET public/a HTTP/1.1')],
  ['a target of a query', head('GET ?/public/a HTTP/1.1')],
  ['a method in lower case', head('get /public/a HTTP/1.1')],
  ['a method in mixed case', head('Get /public/a HTTP/1.1')],
  ['a method that nobody knows', head('FOO /public/a HTTP/1.1')],
  ['a method with a dot', head('GET.X /public/a HTTP/1.1')],
  ['a method with quotes', head('"GET" /public/a HTTP/1.1')],
  ['a method beyond ASCII', head('G\xcbT /public/a HTTP/1.1')],
  ['an empty method', head(' /public/a HTTP/1.1')],
  ['a space before the method', head(' GET /public/a HTTP/1.1')],
  ['a tab for a space', head('GET\t/public/a\tHTTP/1.1')],
  ['a tab before the version', head('GET /public/a\tHTTP/1.1')],
  ['a space in the target', head('GET /public/a b HTTP/1.1')],
  ['two spaces before the version', head('GET /public/a  HTTP/1.1')],
  ['two spaces before the target', head('GET  /public/a HTTP/1.1')],
  ['another protocol', head('GET /public/a RTSP/1.0')],
  ['another protocol of the same version', head('GET /public/a ICE/1.1')],
  ['a space after the version', head('GET /public/a HTTP/1.1 ')],
  ['two versions', head('GET /public/a HTTP/1.1 HTTP/1.1')],
  ['a carriage return in the target', head('GET /public/a\rb HTTP/1.1')],
  ['a vertical tab in the request line', head('GET /public/a\x0bHTTP/1.1')],
  ['HTTP/0.9', `GET /public/a\r\n\r\n`],
  ['HTTP/0.9 with a Host', head('GET /public/a')],
  ['HTTP/0.9 by name', head('GET /public/a HTTP/0.9')],
  ['HTTP/1.2', head('GET /public/a HTTP/1.2')],
  ['HTTP/2.0', head('GET /public/a HTTP/2.0')],
  ['HTTP/3.0', head('GET /public/a HTTP/3.0')],
  ['HTTP/1', head('GET /public/a HTTP/1')],
  ['HTTP/1.10', head('GET /public/a HTTP/1.10')],
  ['HTTP/01.1', head('GET /public/a HTTP/01.1')],
  ['HTTP/1.1x', head('GET /public/a HTTP/1.1x')],
  ['http/1.1', head('GET /public/a http/1.1')],
  ['HTTPS/1.1', head('GET /public/a HTTPS/1.1')],
  ['HTTP 1.1', head('GET /public/a HTTP 1.1')],
  ['the preface of HTTP/2 cut short', 'PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'],
  ['the preface of HTTP/2 with fields', head('PRI * HTTP/2.0')],
  ['the preface of HTTP/2 for HTTP/1.1', head('PRI * HTTP/1.1')],
  ['PRI with a path', head('PRI /public/a HTTP/1.1')],
  ['chunks in HTTP/1.0', `POST /public/a HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${END}`],
  [
    'chunks in HTTP/1.0 that stays open',
    `POST /public/a HTTP/1.0\r\n${HOST}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n${END}`,
  ],
  [
    'HTTP/1.0 with both',
    `POST /public/a HTTP/1.0\r\n${HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n${END}`,
  ],
  ['HTTP/1.0 without a Host', `GET /public/a HTTP/1.0\r\n\r\n`],
  ['a response', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ['a TLS handshake', '\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03'],
]

/** Heads that end where they seem to, and are refused for what they say. */
const MEANINGS: readonly (readonly [string, string])[] = [
  ['no Host', head('GET /public/a HTTP/1.1', 'X: 1\r\n')],
  ['two hosts', head('GET /public/a HTTP/1.1', `${HOST}Host: evil.test\r\n`)],
  ['the same host twice', head('GET /public/a HTTP/1.1', `${HOST}${HOST}`)],
  ['an empty host', head('GET /public/a HTTP/1.1', `Host:\r\n`)],
  ['a host with a comma', head('GET /public/a HTTP/1.1', `Host: api.test, evil.test\r\n`)],
  ['a host with a space', head('GET /public/a HTTP/1.1', `Host: api.test evil.test\r\n`)],
  ['a host with a path', head('GET /public/a HTTP/1.1', `Host: api.test/admin\r\n`)],
  ['a host with a query', head('GET /public/a HTTP/1.1', `Host: api.test?x\r\n`)],
  ['a host with a fragment', head('GET /public/a HTTP/1.1', `Host: api.test#x\r\n`)],
  ['a host with a user', head('GET /public/a HTTP/1.1', `Host: api.test@evil.test\r\n`)],
  ['a host with a backslash', head('GET /public/a HTTP/1.1', `Host: api.test\\evil.test\r\n`)],
  ['a host with an escape', head('GET /public/a HTTP/1.1', `Host: api%2etest\r\n`)],
  ['a host with a scheme', head('GET /public/a HTTP/1.1', `Host: http://api.test\r\n`)],
  ['a host with a port of letters', head('GET /public/a HTTP/1.1', `Host: api.test:http\r\n`)],
  ['a host with two ports', head('GET /public/a HTTP/1.1', `Host: api.test:80:81\r\n`)],
  ['an absolute target', head('GET http://api.test/public/a HTTP/1.1')],
  ['an absolute target of another host', head('GET http://evil.test/public/a HTTP/1.1')],
  ['an absolute target in capitals', head('GET HTTP://api.test/public/a HTTP/1.1')],
  ['an absolute target of another scheme', head('GET file:///public/a HTTP/1.1')],
  ['an absolute target with a user', head('GET http://a@api.test/public/a HTTP/1.1')],
  ['two slashes for a target', head('GET //evil.test/public/a HTTP/1.1')],
  ['an asterisk for a target', head('GET * HTTP/1.1')],
  ['OPTIONS *', head('OPTIONS * HTTP/1.1')],
  ['TRACE', head('TRACE /public/a HTTP/1.1')],
  ['TRACE with a body', `${head('TRACE /public/a HTTP/1.1', `${HOST}Content-Length: 5\r\n`)}hello`],
]

const withLength = (value: string) => value.replaceAll('N', String(SMUGGLED.length))

/** Refused, each with the request behind it: nothing reaches the backend, and the connection ends. */
export const REFUSED: readonly Framing[] = [
  ...CODINGS.map((coding) => ({
    what: `Transfer-Encoding: ${JSON.stringify(coding)}`,
    bytes: post(`Transfer-Encoding: ${coding}\r\n`, END + SMUGGLED),
  })),
  ...CODINGS.map((coding) => ({
    what: `Content-Length and Transfer-Encoding: ${JSON.stringify(coding)}`,
    bytes: post(`Content-Length: 5\r\nTransfer-Encoding: ${coding}\r\n`, END + SMUGGLED),
  })),
  ...CODING_LINES.flatMap((line) => [
    { what: JSON.stringify(line), bytes: post(line, END + SMUGGLED) },
    { what: `a length and ${JSON.stringify(line)}`, bytes: post(`Content-Length: 5\r\n${line}`, END + SMUGGLED) },
  ]),
  ...LENGTHS.map((length) => ({
    what: `Content-Length: ${JSON.stringify(length)}`,
    bytes: post(`Content-Length: ${withLength(length)}\r\n`, SMUGGLED),
  })),
  ...LENGTH_LINES.map((line) => ({ what: JSON.stringify(line), bytes: post(withLength(line), SMUGGLED) })),
  ...BOTH.map((lines) => ({ what: JSON.stringify(lines), bytes: post(lines, END + SMUGGLED) })),
  ...HEADS.map(([what, bytes]) => ({ what, bytes: bytes + SMUGGLED })),
]

/** Refused by themselves: what follows is a request of its own. */
export const REFUSED_ALONE: readonly Framing[] = MEANINGS.map(([what, bytes]) => ({ what, bytes: bytes + SMUGGLED }))

/** Begun before they are found out: the backend sees the start of the one request, never a second one. */
export const CUT: readonly Framing[] = [
  ...CHUNKS.map((chunks) => ({
    what: `chunks ${JSON.stringify(chunks.slice(0, 40))}`,
    bytes: post('Transfer-Encoding: chunked\r\n', chunks + SMUGGLED),
  })),
]

const chunked = (what: string, fields: string, body: string, arrives = '1\r\na\r\n0\r\n\r\n'): Forwarded => ({
  what,
  bytes: post(fields, body),
  fields: HOST,
  body: arrives,
  chunked: true,
})
const counted = (what: string, fields: string, kept: string, body = 'a'): Forwarded => ({
  what,
  bytes: post(fields, body),
  fields: HOST + kept,
  body,
  chunked: false,
})
const other = (method: string, fields: string, body: string, kept: string): Forwarded => ({
  what: `${method} with ${fields === '' ? 'no body' : JSON.stringify(fields)}`,
  bytes: `${method} /public/a HTTP/1.1\r\n${HOST}${fields}\r\n${body}`,
  line: `${method} /public/a HTTP/1.1`,
  fields: HOST + kept,
  body,
  chunked: fields.startsWith('T'),
})
const ONE = '1\r\na\r\n0\r\n\r\n'
const TE = 'Transfer-Encoding: chunked\r\n'
const CL = 'Content-Length: 1\r\n'

/** Read in one way, and forwarded so that nobody can read them in another. */
export const FORWARDED: readonly Forwarded[] = [
  chunked('chunks', TE, ONE),
  chunked('chunks in capitals', 'TRANSFER-ENCODING: CHUNKED\r\n', ONE),
  chunked('chunks in mixed case', 'transfer-Encoding: cHunked\r\n', ONE),
  chunked('no space before the coding', 'Transfer-Encoding:chunked\r\n', ONE),
  chunked('tabs around the coding', 'Transfer-Encoding:\t chunked \r\n', ONE),
  chunked('a size with leading zeros', TE, '0001\r\na\r\n000\r\n\r\n'),
  chunked('a size in capitals', TE, `A\r\n0123456789\r\n0\r\n\r\n`, `a\r\n0123456789\r\n0\r\n\r\n`),
  chunked('an extension', TE, '1;a\r\na\r\n0;b=c\r\n\r\n'),
  chunked('an extension in quotes', TE, '1;a="b;c"\r\na\r\n0\r\n\r\n'),
  chunked('an extension that looks like a size', TE, '1;ffff\r\na\r\n0;0\r\n\r\n'),
  chunked('trailers that identify', TE, '1\r\na\r\n0\r\nX-Auth-Subject: mallory\r\nx_auth_roles: a\r\n\r\n'),
  chunked(
    'trailers that route',
    TE,
    '1\r\na\r\n0\r\nHost: evil\r\nAuthorization: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n',
  ),
  chunked('trailers that keep cookies', TE, '1\r\na\r\n0\r\nCookie: a\r\nContent_Length: 9\r\nConnection: X\r\n\r\n'),
  chunked('a plain trailer', TE, '1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n', '1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n'),
  counted('a length', CL, CL),
  counted('a length in lower case', 'content-length:1\r\n', 'content-length: 1\r\n'),
  counted('tabs around the length', 'Content-Length:\t1 \r\n', CL),
  counted('a length with leading zeros', 'Content-Length: 0001\r\n', 'Content-Length: 0001\r\n'),
  counted('a length of zeros', 'Content-Length: 000\r\n', 'Content-Length: 000\r\n', ''),
  counted('a coding with an underscore', `Transfer_Encoding: chunked\r\n${CL}`, CL),
  counted('a coding with a dot', `Transfer.Encoding: chunked\r\n${CL}`, CL),
  counted('a length with an underscore', `Content_Length: 99\r\n${CL}`, CL),
  counted('a length with a dot', `Content.Length: 99\r\n${CL}`, CL),
  counted(
    'a coding of somebody else',
    `X-Transfer-Encoding: chunked\r\n${CL}`,
    `X-Transfer-Encoding: chunked\r\n${CL}`,
  ),
  counted('a length that Connection names', `Connection: Content-Length\r\n${CL}`, CL),
  counted('a coding that Connection names', `Connection: Transfer-Encoding, X\r\nX: 1\r\n${CL}`, CL),
  counted(
    'a body that looks like a request',
    `Content-Length: ${SMUGGLED.length}\r\n`,
    `Content-Length: ${SMUGGLED.length}\r\n`,
    SMUGGLED,
  ),
  ...['GET', 'HEAD', 'DELETE', 'OPTIONS', 'PUT', 'PATCH', 'PROPFIND', 'PURGE', 'QUERY'].flatMap((method) => [
    other(method, '', '', ''),
    other(method, CL, 'a', CL),
    other(method, 'Content-Length: 0\r\n', '', 'Content-Length: 0\r\n'),
    other(method, TE, ONE, ''),
    other(method, TE, '0\r\n\r\n', ''),
  ]),
  { ...counted('HTTP/1.0', CL, CL), bytes: `POST /public/a HTTP/1.0\r\n${HOST}${CL}\r\na` },
  {
    ...counted('HTTP/1.0 that stays open', CL, CL),
    bytes: `POST /public/a HTTP/1.0\r\n${HOST}Connection: keep-alive\r\n${CL}\r\na`,
  },
]
