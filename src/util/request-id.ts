import { randomBytes } from 'node:crypto'

const PROCESS = randomBytes(9).toString('base64url')
let last = 0

/** A name for one request, different from those of all other requests and processes: a random word and a count. */
export function newRequestId(): string {
  last += 1
  return `${PROCESS}-${last.toString(36)}`
}
