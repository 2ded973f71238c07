/**
 * How long a response may be used by its own account, in milliseconds; undefined when it does not say. `no-store` and
 * `no-cache` mean 0: the caller of this function has its own idea of the least.
 *
 * @param headers - names in lower case
 * @param nowMs - for a response without a `Date`
 * @see RFC 9111 §4.2.1, §5.2.2 and §5.3; this is a private cache, so `s-maxage` is not for it
 */
export function readFreshnessMs(headers: Readonly<Record<string, string>>, nowMs: number): number | undefined {
  const directives = readDirectives(headers['cache-control'] ?? '')
  if (directives.has('no-store') || directives.has('no-cache')) return 0
  const maxAge = directives.get('max-age')
  if (maxAge !== undefined) return Math.max(0, readSeconds(maxAge) - readSeconds(headers['age'])) * 1000
  const { expires, date } = headers
  if (expires === undefined) return undefined
  const sentMs = Date.parse(date ?? '')
  const freshMs = Date.parse(expires) - (Number.isNaN(sentMs) ? nowMs : sentMs)
  // What is no date, "0" most of all, means that it expired already.
  return Number.isNaN(freshMs) ? 0 : Math.max(0, freshMs)
}

function readDirectives(value: string): ReadonlyMap<string, string> {
  const directives = new Map<string, string>()
  for (const directive of value.split(',')) {
    const [name = '', argument = ''] = directive.split('=', 2)
    directives.set(name.trim().toLowerCase(), argument.trim().replace(/^"(.*)"$/, '$1'))
  }
  return directives
}

/** Whole seconds; anything else counts as none. */
function readSeconds(text: string | undefined): number {
  return text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : 0
}
