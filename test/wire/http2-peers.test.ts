import { execFile, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../fakes/authorization-server.ts'
import { createAuthority } from '../fakes/certificates.ts'
import { startSidecar, stopSidecars, type FakeSidecar } from '../fakes/sidecar.ts'
import { record, startUpstream, type FakeUpstream } from '../fakes/upstream.ts'

const DOWNLOAD = randomBytes(3_000_000)
const BODY = randomBytes(1_000_000)
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

let issuer: AuthorizationServer
let upstream: FakeUpstream
let clear: FakeSidecar
let tls: FakeSidecar
let authorization: string
const trailers: (readonly string[])[] = []
const folder = mkdtempSync(join(tmpdir(), 'bearward-peers-'))
const file = (name: string) => join(folder, name)

beforeAll(async () => {
  issuer = await startAuthorizationServer()
  upstream = await startUpstream((request, response, recorded) => {
    if (recorded.url.startsWith('/download')) return void response.end(DOWNLOAD)
    record(request, recorded, () => {
      trailers.push(request.rawTrailers)
      response.end(`${recorded.method} ${recorded.bodyBytes} ${recorded.bodySha256}`)
    })
  })
  const authority = createAuthority('ours')
  const { cert, key } = authority.issue('localhost', '127.0.0.1')
  writeFileSync(file('ca.pem'), authority.certificate)
  writeFileSync(file('cert.pem'), cert)
  writeFileSync(file('key.pem'), key)
  writeFileSync(file('body'), BODY)
  const config = { issuers: [{ issuer: issuer.issuer, audience: issuer.audience }], upstream: upstream.url }
  const files = { certificate_file: file('cert.pem'), key_file: file('key.pem') }
  clear = await startSidecar({ config })
  tls = await startSidecar({ config: { ...config, listen: { tls: files } } })
  await Promise.all([clear.ready(), tls.ready()])
  authorization = `authorization: Bearer ${issuer.signAccessToken({ sub: 'alice' })}`
})
beforeEach(() => {
  upstream.requests.splice(0)
  trailers.splice(0)
})
afterAll(async () => {
  await stopSidecars()
  await issuer.stop()
  await upstream.stop()
  rmSync(folder, { recursive: true })
})

interface Output {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function run(program: string, ...argv: readonly string[]): Promise<Output> {
  return new Promise((resolve) => {
    const options = { encoding: 'latin1', maxBuffer: 64 * 1024 * 1024 } as const
    execFile(program, argv, options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    )
  })
}

/** Whether a program is there and was built with what is needed of it. */
function lacks(program: string, flag: string, needed: RegExp): boolean {
  const { error, stdout } = spawnSync(program, [flag], { encoding: 'utf8' })
  const isLacking = error !== undefined || !needed.test(stdout)
  if (isLacking) console.warn(`skipped: there is no ${program} that speaks HTTP/2 here`)
  return isLacking
}

/** How often each byte occurs. */
function countBytes(data: Buffer): number[] {
  const counts = Array<number>(256).fill(0)
  for (const byte of data) counts[byte] = (counts[byte] as number) + 1
  return counts
}

const PRIOR = '--http2-prior-knowledge'

describe.skipIf(lacks('curl', '--version', /\bHTTP2\b/))('curl', () => {
  /** By prior knowledge in the clear, by ALPN over TLS; the last line is the version and the status. */
  const curl = async (isTls: boolean, path: string, ...argv: readonly string[]) => {
    const how = isTls ? ['--http2', '--cacert', file('ca.pem')] : [PRIOR]
    const url = `${isTls ? 'https' : 'http'}://127.0.0.1:${(isTls ? tls : clear).proxyPort}${path}`
    const { stdout } = await run('curl', '-s', '-w', '\n%{http_version} %{http_code}', ...how, ...argv, url)
    const end = stdout.lastIndexOf('\n')
    return { body: Buffer.from(stdout.slice(0, end), 'latin1'), result: stdout.slice(end + 1) }
  }

  it.each([
    ['by prior knowledge', false],
    ['by ALPN over TLS', true],
  ])('%s: a download, an upload, HEAD and a refusal', async (_how, isTls) => {
    const download = await curl(isTls, '/download', '-H', authorization)
    expect([download.result, sha256(download.body)]).toEqual(['2 200', sha256(DOWNLOAD)])
    const upload = await curl(isTls, '/a', '-H', authorization, '--data-binary', `@${file('body')}`)
    expect(upload.body.toString()).toBe(`POST ${BODY.length} ${sha256(BODY)}`)
    expect(upstream.requests[1]?.headers).toMatchObject({ 'x-auth-subject': 'alice', 'content-length': '1000000' })
    const unknownLength = await curl(isTls, '/a', '-H', authorization, '-T', file('body'), '-H', 'content-length:')
    expect(unknownLength.body.toString()).toBe(`PUT ${BODY.length} ${sha256(BODY)}`)
    expect((await curl(isTls, '/a', '-H', authorization, '-I')).result).toBe('2 200')
    upstream.requests.splice(0)
    const refused = await curl(isTls, '/a')
    expect([refused.result, JSON.parse(refused.body.toString())]).toEqual([
      '2 401',
      expect.objectContaining({ code: 'credentials_missing' }),
    ])
    for (let i = 0; i < 5; i += 1) {
      // In the middle of its upload, too.
      expect((await curl(isTls, '/a', '-T', file('body'))).result).toBe('2 401')
    }
    expect(upstream.requests).toEqual([])
  })

  it('that asks to upgrade a connection in the clear is refused, and nothing of it travels on', async () => {
    const { stdout } = await run('curl', '-s', '-i', '--http2', '-H', authorization, `${clear.proxy}/a`)
    expect(stdout).toMatch(/^HTTP\/1\.1 501 [\s\S]*upgrade_not_supported/)
    expect(upstream.requests).toEqual([])
  })

  it('that waits for 100 Continue sends its body once it may, and never when refused', async () => {
    const waits = ['-H', 'expect: 100-continue', '--expect100-timeout', '30', '-T', file('body'), '-v']
    for (const how of [PRIOR, '--http1.1']) {
      const sent = await run('curl', '-s', how, '-H', authorization, ...waits, `${clear.proxy}/a`)
      expect(sent.stdout).toBe(`PUT ${BODY.length} ${sha256(BODY)}`)
      expect(sent.stderr).toMatch(/^< HTTP\/(?:2|1\.1) 100/m)
      const refused = await run('curl', '-s', how, '-w', '%{size_upload}', ...waits, `${clear.proxy}/a`)
      expect(refused.stderr).not.toMatch(/^< HTTP\/(?:2|1\.1) 100/m)
      // Over HTTP/2 it has begun by then: it does not wait there. It gets its answer all the same.
      expect(refused.stdout).toMatch(how === PRIOR ? /credentials_missing.*\}\d+$/ : /credentials_missing.*\}0$/)
    }
    expect(upstream.requests).toHaveLength(2)
  })
})

describe.skipIf(lacks('nghttp', '--version', /nghttp2/))('nghttp', () => {
  const nghttp = (...argv: readonly string[]) => run('nghttp', '-H', authorization, ...argv)

  it('sends trailers behind a body of unknown length, which reach the backend', async () => {
    const { stdout } = await nghttp(
      '-d',
      file('body'),
      '--no-content-length',
      '--trailer',
      'x-sum: abc',
      `${clear.proxy}/a`,
    )
    expect(stdout).toBe(`POST ${BODY.length} ${sha256(BODY)}`)
    expect(trailers).toEqual([['x-sum', 'abc']])
  })

  it('with the smallest windows, several streams at a time, gets each whole', async () => {
    const urls = Array.from({ length: 5 }, (_, i) => `${clear.proxy}/download?${i}`)
    const { stdout, code } = await nghttp('-w', '14', '-W', '14', '--no-dep', ...urls)
    // It writes what comes as it comes, so that the streams are mixed up.
    expect([code, stdout.length]).toEqual([0, DOWNLOAD.length * 5])
    expect(countBytes(Buffer.from(stdout, 'latin1'))).toEqual(countBytes(Buffer.concat(Array(5).fill(DOWNLOAD))))
  })

  it('sees frames in the order that the protocol wants, padding and priorities of its own included', async () => {
    const { stdout } = await nghttp('-v', '-n', '-b', '200', `${clear.proxy}/a`)
    const received = [
      ...stdout.matchAll(/recv (?:\(stream_id=\d+\) )?(SETTINGS|HEADERS|DATA|GOAWAY|RST_STREAM|:status: \d+)/g),
    ]
    expect(received.map(([, what]) => what).filter((what) => what !== 'SETTINGS')).toEqual([
      ':status: 200',
      'HEADERS',
      'DATA',
    ])
  })
})

describe.skipIf(lacks('h2load', '--version', /nghttp2/))('h2load', () => {
  const STATUS = /^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored/m

  it.each([
    ['in the clear', false, 'h2c'],
    ['over TLS', true, 'h2'],
  ])('%s: 2,000 requests on 10 connections, 50 at a time on each, none fails', async (_how, isTls, protocol) => {
    const url = `${isTls ? 'https' : 'http'}://127.0.0.1:${(isTls ? tls : clear).proxyPort}/a`
    const { stdout } = await run('h2load', '-n', '2000', '-c', '10', '-m', '50', '-H', authorization, url)
    expect(stdout).toContain(`Application protocol: ${protocol}\n`)
    expect(STATUS.exec(stdout)?.slice(1)).toEqual(['2000', '2000', '2000', '0', '0'])
    expect(stdout).toMatch(/^status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx$/m)
    expect(upstream.requests).toHaveLength(2_000)
  })

  it('with bodies: each arrives whole', async () => {
    const argv = ['-n', '50', '-c', '5', '-m', '5', '-d', file('body'), '-H', authorization, `${clear.proxy}/a`]
    const { stdout } = await run('h2load', ...argv)
    expect(STATUS.exec(stdout)?.slice(1)).toEqual(['50', '50', '50', '0', '0'])
    expect(upstream.requests.map(({ bodySha256 }) => bodySha256)).toEqual(Array(50).fill(sha256(BODY)))
  })

  it('without a token: each is refused, and the backend sees nothing', async () => {
    const { stdout } = await run('h2load', '-n', '500', '-c', '5', '-m', '50', `${clear.proxy}/a`)
    expect(stdout).toMatch(/^status codes: 0 2xx, 0 3xx, 500 4xx, 0 5xx$/m)
    expect(upstream.requests).toEqual([])
  })
})
