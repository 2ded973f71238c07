import { ConfigError } from '../errors.ts'
import { readSecret } from './secrets.ts'

const FORMS: readonly (readonly [RegExp, BufferEncoding])[] = [
  [/^[0-9a-fA-F]{64}$/, 'hex'],
  [/^[A-Za-z0-9+/]{43}=?$/, 'base64'],
  [/^[A-Za-z0-9_-]{43}=?$/, 'base64url'],
]

/**
 * Reads a key for sealing: 32 bytes, written in base64, base64url or hex.
 *
 * @throws ConfigError when the file cannot be read or holds anything else; names the file, never what is in it
 */
export function readSealingKey(file: string): Buffer {
  const text = readSecret({ file }, {}).trim()
  const form = FORMS.find(([shape]) => shape.test(text))
  if (form !== undefined) return Buffer.from(text, form[1])
  const problem = 'must hold 32 random bytes in base64 or hex, such as openssl rand -base64 32 writes.'
  throw new ConfigError([{ source: file, path: '', problem }])
}
