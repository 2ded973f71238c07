import { describe, expect, it } from 'vitest'
import { readHttp2Request } from '../../../src/http/http2-request.ts'

const PSEUDO = [':method', 'GET', ':scheme', 'http', ':authority', 'api.test', ':path', '/a?b']
const read = (raw: readonly string[], ended = true, maxBytes = 4_096) => readHttp2Request(raw, ended, maxBytes)

describe('the header of an HTTP/2 request', () => {
  it('is read into the form of HTTP/1.1', () => {
    expect(read([...PSEUDO, 'x-odd', 'a', 'x-odd', 'b'])).toEqual({
      method: 'GET',
      target: '/a?b',
      fields: ['host', 'api.test', 'x-odd', 'a', 'x-odd', 'b'],
      fault: undefined,
    })
  })

  it('has one cookie field, where the first was', () => {
    const { fields } = read([...PSEUDO, 'cookie', 'a=1', 'x-odd', 'a', 'cookie', 'b=2', 'cookie', 'c=3'])
    expect(fields).toEqual(['host', 'api.test', 'cookie', 'a=1; b=2; c=3', 'x-odd', 'a'])
  })

  it('tells of a body by its length, or that there is one', () => {
    expect(read(PSEUDO, false).fields).toEqual(['host', 'api.test', 'transfer-encoding', 'chunked'])
    expect(read([...PSEUDO, 'content-length', '3'], false).fields).toEqual(['host', 'api.test', 'content-length', '3'])
  })

  it('may have Host instead of :authority, or the same in both', () => {
    const without = PSEUDO.filter((_, i) => i !== 4 && i !== 5)
    expect(read([...without, 'host', 'other.test']).fields.slice(0, 2)).toEqual(['host', 'other.test'])
    expect(read([...PSEUDO, 'host', 'API.test'])).toMatchObject({ fields: ['host', 'api.test'], fault: undefined })
    // Neither of them: the gate refuses an empty one.
    expect(read(without).fields.slice(0, 2)).toEqual(['host', ''])
  })

  it.each<[string, string, readonly string[]]>([
    ['header_invalid', 'no :method', PSEUDO.slice(2)],
    ['header_invalid', 'no :path', PSEUDO.slice(0, 6)],
    ['header_invalid', 'no :scheme', [...PSEUDO.slice(0, 2), ...PSEUDO.slice(4)]],
    ['header_invalid', 'an odd :scheme', PSEUDO.map((text) => (text === 'http' ? 'ftp' : text))],
    ['header_invalid', 'a second :path', [...PSEUDO, ':path', '/a?b']],
    ['header_invalid', 'an unknown one', [...PSEUDO, ':status', '200']],
    ['header_invalid', 'connection', [...PSEUDO, 'connection', 'close']],
    ['header_invalid', 'keep-alive', [...PSEUDO, 'keep-alive', '1']],
    ['header_invalid', 'proxy-connection', [...PSEUDO, 'proxy-connection', '1']],
    ['header_invalid', 'transfer-encoding', [...PSEUDO, 'transfer-encoding', 'chunked']],
    ['header_invalid', 'upgrade', [...PSEUDO, 'upgrade', 'h2c']],
    ['header_invalid', 'http2-settings', [...PSEUDO, 'http2-settings', 'x']],
    ['header_invalid', 'te', [...PSEUDO, 'te', 'trailers, gzip']],
    ['header_invalid', 'an upper-case name', [...PSEUDO, 'X-Odd', 'a']],
    ['header_invalid', 'a length twice', [...PSEUDO, 'content-length', '0', 'content-length', '0']],
    ['header_invalid', 'a length that is none', [...PSEUDO, 'content-length', '0x1']],
    ['header_invalid', 'a length without a body', [...PSEUDO, 'content-length', '1']],
    ['host_invalid', 'a host that is another', [...PSEUDO, 'host', 'other.test']],
    ['host_invalid', 'two hosts', [...PSEUDO, 'host', 'api.test', 'host', 'api.test']],
    ['method_not_supported', 'CONNECT', [':method', 'CONNECT', ':authority', 'db.test:1']],
    ['method_not_supported', 'an extended CONNECT', [...PSEUDO, ':protocol', 'websocket']],
    ['method_not_supported', 'a method in lower case', PSEUDO.map((text) => (text === 'GET' ? 'get' : text))],
    ['header_too_large', 'a large field', [...PSEUDO, 'x-odd', 'x'.repeat(4_096)]],
    ['header_too_large', 'many small fields', [...PSEUDO, ...Array.from({ length: 240 }, () => 'x')]],
  ])('is refused with %s for %s', (code, _name, raw) => {
    expect(read(raw).fault).toMatchObject({ code })
  })

  it('may say te: trailers, as gRPC does', () => {
    expect(read([...PSEUDO, 'te', 'Trailers']).fault).toBeUndefined()
  })
})
