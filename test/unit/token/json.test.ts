import { describe, expect, it } from 'vitest'
import { readObject } from '../../../src/token/json.ts'

const read = (text: string | Buffer) => readObject(Buffer.from(text as string))

describe('a JSON object', () => {
  it.each(['{}', ' {"a":1} ', '{"a":{"a":[{"a":1},{"a":2}]},"b":"a\\"{[,:"}', '{"a":"}{","b":"\\\\"}'])(
    '%s is read',
    (text) => {
      expect(read(text)).toEqual(JSON.parse(text))
    },
  )

  it.each<[string, string | Buffer]>([
    ['is not a JSON object', '[]'],
    ['is not a JSON object', 'null'],
    ['is not a JSON object', '"a"'],
    ['is not JSON', ''],
    ['is not JSON', '{"a":1'],
    ['is not JSON', '{"a":1}x'],
    ['is not JSON', '\ufeff{"a":1}'],
    ['is not JSON', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['has a member twice', '{"a":1,"a":2}'],
    ['has a member twice', '{"a":1,"\\u0061":2}'],
    ['has a member twice', '{"x":[{"b":1,"b" : 2}]}'],
    ['has a member twice', '{"a":{"q":1},"b":"x","a":1}'],
    ['is nested too deeply', `{"a":${'['.repeat(30)}${']'.repeat(30)}}`],
  ])('%s: %j', (fault, text) => {
    expect(read(text)).toBe(fault)
  })
})
