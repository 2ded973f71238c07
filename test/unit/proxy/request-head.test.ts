import { describe, expect, it } from 'vitest'
import { hasBody } from '../../../src/proxy/request-head.ts'
import type { CallerRequest } from '../../../src/server/caller.ts'

const request = (...rawHeaders: string[]) => ({ rawHeaders }) as unknown as CallerRequest

describe('a body', () => {
  it.each([
    ['Content-Length', '1'],
    ['content-length', '0010'],
    ['Transfer-Encoding', 'chunked'],
  ])('is there with %s: %s', (name, value) => {
    expect(hasBody(request('Host', 'a', name, value))).toBe(true)
  })

  it.each([
    ['Content-Length', '0'],
    ['Content-Length', '000'],
    ['X-Content-Length', '1'],
  ])('is not there with %s: %s, and nobody waits for it', (name, value) => {
    expect(hasBody(request('Host', 'a', name, value))).toBe(false)
  })
})
