import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { ConfigError } from '../../../src/errors.ts'
import { createEgress, EgressError, type Egress, type EgressOptions } from '../../../src/issuer/egress.ts'
import { readProxy } from '../../../src/issuer/proxy.ts'
import { createAuthority } from '../../fakes/certificates.ts'
import { answering, startKeyServer } from '../../fakes/key-server.ts'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bearward-'))))
afterEach(() => rmSync(folder, { recursive: true }))

function open(options: EgressOptions = {}): Egress {
  const egress = createEgress(options)
  onTestFinished(() => egress.close())
  return egress
}

/** The body that a request brings, or the code of its failure. */
async function get(egress: Egress, url: string, timeoutMs = 5_000): Promise<string> {
  try {
    return (await egress.send(url, { method: 'GET', headers: {}, timeoutMs })).body
  } catch (error) {
    expect(error).toBeInstanceOf(EgressError)
    expect((error as Error).message).not.toContain('127.0.0.1')
    return (error as EgressError).code
  }
}

async function start(handler: Parameters<typeof startKeyServer>[0], identity?: Parameters<typeof startKeyServer>[1]) {
  const server = await startKeyServer(handler, identity)
  onTestFinished(() => server.stop())
  return server
}

describe('the door to issuers', () => {
  it('follows no redirect', async () => {
    const target = await start(answering(200, 'there'))
    const server = await start(answering(302, 'moved', { location: target.url }))
    const egress = open()
    expect(await egress.send(server.url, { method: 'GET', headers: {}, timeoutMs: 5_000 })).toMatchObject({
      status: 302,
    })
    expect(target.requests).toEqual([])
  })

  it('reads a MiB and no more', async () => {
    const egress = open()
    const most = await start(answering(200, 'x'.repeat(1024 * 1024)))
    expect(await get(egress, most.url)).toHaveLength(1024 * 1024)
    const more = await start(answering(200, 'x'.repeat(1024 * 1024 + 1)))
    expect(await get(egress, more.url)).toBe('UND_ERR_RES_EXCEEDED_MAX_SIZE')
  })

  it('waits for the last byte no longer than it is told', async () => {
    const server = await start((_request, response) => void response.write('a'))
    expect(await get(open(), server.url, 200)).toBe('timeout')
  })

  it('asks for no compression and takes none', async () => {
    const server = await start(answering(200, 'zipped', { 'content-encoding': 'br' }))
    expect(await get(open(), server.url)).toBe('response_encoded')
    expect(server.requests[0]?.headers['accept-encoding']).toBe('identity')
  })

  it('says when nothing was sent', async () => {
    const server = await start(answering(200, 'x'))
    await server.stop()
    await expect(open().send(server.url, { method: 'GET', headers: {}, timeoutMs: 1_000 })).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      unsent: true,
    })
    await server.restart()
  })
})

describe('certificates', () => {
  const ours = createAuthority('ours')
  const theirs = createAuthority('theirs')

  it('of unknown authorities are refused, with the way out', async () => {
    const server = await start(answering(200, 'keys'), ours.issue('127.0.0.1'))
    const failure = open().send(server.url, { method: 'GET', headers: {}, timeoutMs: 5_000 })
    await expect(failure).rejects.toMatchObject({ unsent: true })
    await expect(failure).rejects.toThrow(/authority that is not known; name that in ca_file/)
  })

  it('of the authority in a file are trusted, those for another host are not', async () => {
    const caFile = join(folder, 'ca.crt')
    writeFileSync(caFile, ours.certificate)
    const egress = open({ caFile })
    expect(await get(egress, (await start(answering(200, 'keys'), ours.issue('127.0.0.1'))).url)).toBe('keys')
    const other = await start(answering(200, 'keys'), ours.issue('other.test'))
    expect(await get(egress, other.url)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
    const foreign = await start(answering(200, 'keys'), theirs.issue('127.0.0.1'))
    expect(await get(egress, foreign.url)).toMatch(/UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT_LOCALLY/)
  })

  it('follow a file that is swapped as a kubelet does it, and outlive one that is broken or gone', async () => {
    const write = (version: string, text: string) => {
      writeFileSync(join(folder, version), text)
      symlinkSync(version, join(folder, `${version}.link`))
      renameSync(join(folder, `${version}.link`), join(folder, 'ca.crt'))
    }
    write('v1', theirs.certificate)
    const egress = open({ caFile: join(folder, 'ca.crt') })
    const server = await start(answering(200, 'keys'), ours.issue('127.0.0.1'))
    expect(await get(egress, server.url)).not.toBe('keys')
    write('v2', ours.certificate)
    expect(await get(egress, server.url)).toBe('keys')
    for (const broken of ['', 'no certificate', ours.certificate.slice(0, 200)]) {
      writeFileSync(join(folder, 'v2'), broken)
      expect(await get(egress, server.url)).toBe('keys')
    }
    rmSync(join(folder, 'ca.crt'))
    expect(await get(egress, server.url)).toBe('keys')
  })

  it('cannot come from a file that is not there', async () => {
    const egress = open({ caFile: join(folder, 'nothing') })
    await expect(egress.send('https://127.0.0.1:1', { method: 'GET', headers: {}, timeoutMs: 1_000 })).rejects.toThrow(
      /file of ca_file cannot be read/,
    )
  })
})

describe('a certificate to show', () => {
  it('that does not belong to its key is not used: the pair before is, or none at all', async () => {
    const authority = createAuthority('authority')
    const [one, two] = [authority.issue('one.test'), authority.issue('two.test')]
    const certificateFile = join(folder, 'cert.pem')
    const keyFile = join(folder, 'key.pem')
    const server = await start(answering(200, 'keys'))
    writeFileSync(certificateFile, one.cert)
    writeFileSync(keyFile, two.key)
    const egress = open({ certificateFile, keyFile })
    const failure = egress.send(server.url, { method: 'GET', headers: {}, timeoutMs: 1_000 })
    await expect(failure).rejects.toMatchObject({ code: 'client_certificate_unusable', unsent: true })
    writeFileSync(keyFile, one.key)
    expect(await get(egress, server.url)).toBe('keys')
    writeFileSync(certificateFile, two.cert)
    expect(await get(egress, server.url)).toBe('keys')
    rmSync(keyFile)
    expect(await get(egress, server.url)).toBe('keys')
  })
})

describe('a proxy', () => {
  /** One that leads everywhere to the same server; records what it was asked for. */
  async function startProxy(to: number) {
    const asked: string[] = []
    const server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`)
      response.end('from the proxy')
    })
    server.on('connect', (request, socket) => {
      asked.push(`CONNECT ${request.url}`)
      const onward = connect(to, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n')
        onward.pipe(socket)
        socket.pipe(onward)
      })
      for (const one of [socket, onward]) one.on('error', () => socket.destroy())
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.close()
      server.closeAllConnections()
    })
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
  }

  it('is gone through, with TLS to the issuer inside, and not for this machine or for exceptions', async () => {
    const authority = createAuthority('ours')
    const caFile = join(folder, 'ca.crt')
    writeFileSync(caFile, authority.certificate)
    const issuer = await start(answering(200, 'keys'), authority.issue('issuer.test', '127.0.0.1'))
    const proxy = await startProxy(issuer.port)
    const settings = readProxy({ HTTPS_PROXY: proxy.url, NO_PROXY: 'internal.test' })
    const egress = open({ caFile, ...(settings && { proxy: settings }) })
    expect(await get(egress, 'https://issuer.test/keys')).toBe('keys')
    expect(proxy.asked).toEqual(['CONNECT issuer.test:443'])
    expect(await get(egress, issuer.url)).toBe('keys')
    expect(await get(egress, 'https://internal.test/keys')).toMatch(/ENOTFOUND|EAI_AGAIN/)
    expect(await get(egress, 'https://other.test/keys')).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
    expect(proxy.asked).toEqual(['CONNECT issuer.test:443', 'CONNECT other.test:443'])
  })

  it('that is not there is named by its code', async () => {
    const proxy = await startProxy(1)
    const egress = open({ proxy: { url: proxy.url, bypass: '' } })
    expect(await get(egress, 'https://issuer.test/keys')).not.toBe('keys')
    const nothing = open({ proxy: { url: 'http://127.0.0.1:1', bypass: '' } })
    expect(await get(nothing, 'https://issuer.test/keys')).toBe('ECONNREFUSED')
  })

  it.each([
    [{}, undefined],
    [{ HTTPS_PROXY: '' }, undefined],
    [{ HTTP_PROXY: 'http://proxy.test' }, undefined],
    [{ HTTPS_PROXY: 'http://proxy.test:3128' }, { url: 'http://proxy.test:3128', bypass: 'localhost,127.0.0.1,::1,' }],
    [
      { https_proxy: 'http://a.test', HTTPS_PROXY: 'http://b.test', no_proxy: 'x,y', NO_PROXY: 'z' },
      { url: 'http://a.test', bypass: 'localhost,127.0.0.1,::1,x,y' },
    ],
  ])('is read from the environment (%j)', (env, expected) => {
    expect(readProxy(env)).toEqual(expected)
  })

  it.each(['proxy.test:3128', 'socks5://proxy.test', 'nonsense'])('must be a URL (%s)', (value) => {
    expect(() => readProxy({ HTTPS_PROXY: value })).toThrow(ConfigError)
    expect(() => readProxy({ HTTPS_PROXY: value })).toThrow(/^HTTPS_PROXY: must be the http or https URL of a proxy\.$/)
  })
})
