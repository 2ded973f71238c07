import { describe, expect, it } from 'vitest'
import { CODES, type Code } from '../../../src/errors.ts'
import { readGrpcType, toGrpcResponse, toGrpcStatus } from '../../../src/http/grpc.ts'

describe('a call of gRPC', () => {
  it.each([
    ['application/grpc', 'application/grpc'],
    ['application/grpc+proto', 'application/grpc+proto'],
    ['Application/gRPC;charset=utf-8', 'Application/gRPC'],
    ['application/grpc-web+json ', 'application/grpc-web+json'],
    ['application/grpc-web-text', 'application/grpc-web-text'],
    ['application/grpcx', undefined],
    ['application/grpc+a"b', undefined],
    ['application/json', undefined],
    ['text/application/grpc', undefined],
  ])('is known by %s', (value, type) => {
    expect(readGrpcType(['x', 'y', 'Content-Type', value])).toBe(type)
  })

  it('is not known by a missing content-type', () => {
    expect(readGrpcType(['accept', 'application/grpc'])).toBeUndefined()
  })

  it.each<[Code, string]>([
    ['credentials_missing', '16'],
    ['token_expired', '16'],
    ['scope_insufficient', '7'],
    ['claims_forbidden', '7'],
    ['keys_unavailable', '14'],
    ['upstream_unreachable', '14'],
    ['upstream_timeout', '14'],
    ['target_invalid', '3'],
    ['header_too_large', '8'],
    ['method_not_supported', '12'],
    ['internal_error', '13'],
  ])('is told %s as %s', (code, status) => {
    expect(toGrpcStatus(code, 'r-1')[0]).toEqual(['grpc-status', status])
  })

  it('is told every code with a status of its own, in a message that needs no encoding', () => {
    for (const code of Object.keys(CODES) as Code[]) {
      const [[, status] = [], [, message] = []] = toGrpcStatus(code, 'r-1')
      expect(status, code).not.toBe('2')
      expect(message).toMatch(/^[\x20-\x24\x26-\x7e]+$/)
      expect(message).toContain(`(${code}, request r-1)`)
    }
  })

  it('gets a response that is a header alone', () => {
    expect(toGrpcResponse('credentials_missing', 'r-1', 'application/grpc+proto')).toEqual({
      status: 200,
      headers: [
        ...['content-type', 'application/grpc+proto'],
        ...['grpc-status', '16'],
        ...['grpc-message', 'The request carries no access token. (credentials_missing, request r-1)'],
      ],
      body: '',
    })
  })
})
