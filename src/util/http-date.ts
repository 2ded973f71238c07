import { systemClock } from './clock.ts'

let second = -1
let text = ''

/** The time of now as a `Date` field has it (RFC 9110 §5.6.7), made once a second. */
export function httpDate(): string {
  const now = Math.floor(systemClock.now() / 1000)
  if (now !== second) {
    second = now
    text = new Date(now * 1000).toUTCString()
  }
  return text
}
