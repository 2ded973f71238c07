/**
 * Header fields as a flat list `[name, value, name, value, …]`, the way Node parses them and undici sends them, so that
 * duplicates, order and spelling survive until somebody decides about them.
 */

export type FieldList = readonly string[]

/**
 * Names as a backend may see them: lower case, and every other sign than letters and digits read as `-`. CGI-style backends
 * cannot tell `_` from `-`, and PHP makes `_` of a dot as well.
 */
export function canonicalName(name: string): string {
  const lower = name.toLowerCase()
  return /[^a-z0-9-]/.test(lower) ? lower.replace(/[^a-z0-9-]/g, '-') : lower
}

/** How often a field occurs, and its first value. `name` is in lower case; spelled with `_` it is another field. */
export function findField(fields: FieldList, name: string): { count: number; value: string | undefined } {
  let count = 0
  let value: string | undefined
  for (let i = 0; i < fields.length; i += 2) {
    const candidate = fields[i] as string
    if (candidate.length !== name.length || candidate.toLowerCase() !== name) continue
    if (count === 0) value = fields[i + 1]
    count += 1
  }
  return { count, value }
}

/** All values of a list-valued field as one (RFC 9110 §5.3), or `undefined` when it does not occur. */
export function joinField(fields: FieldList, name: string): string | undefined {
  const values: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    if ((fields[i] as string).toLowerCase() === name) values.push(fields[i + 1] as string)
  }
  return values.length === 0 ? undefined : values.join(', ')
}

/**
 * Fields that belong to one connection and never travel on (RFC 9110 §7.6.1), those that only this server may answer
 * (`Expect`, §10.1.1), and the remains of a cleartext HTTP/2 upgrade (RFC 7540 §3.2).
 */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection', // not in any standard, still sent by old clients
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'expect',
])

/** What a caller may not remove by naming it in `Connection`: the request would mean something else without it. */
function isEssential(name: string): boolean {
  return name === 'host' || name === 'authorization' || name === 'cookie' || name.startsWith('content-')
}

/** Of the forwarding fields, the ones rebuilt for every request (http/forwarded.ts): no inbound copy travels on. */
export const REBUILT_FORWARDING: ReadonlySet<string> = new Set([
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
])

/** Fields by which a proxy tells what the caller asked for or who the caller is; believed from trusted peers only. */
function isForwarding(name: string): boolean {
  return (
    name === 'forwarded' ||
    name.startsWith('x-forwarded-') ||
    name.startsWith('x-original-') ||
    name === 'x-real-ip' ||
    name === 'x-rewrite-url' ||
    name === 'x-client-ip' ||
    name === 'true-client-ip' ||
    name === 'x-envoy-external-address' ||
    name === 'x-cluster-client-ip'
  )
}

export interface RequestFieldOptions {
  /** Reserved prefix in canonical form: every inbound field that begins with it is removed. */
  readonly identityPrefix: string
  /** Further names, in canonical form, that only this server sets. */
  readonly managedNames: readonly string[]
  /** Whether the caller's `Authorization` goes on to the upstream. */
  readonly forwardAuthorization: boolean
}

/** Keeps those fields of a request that may travel on to the upstream. */
export type RequestFieldFilter = (fields: FieldList, trustedPeer: boolean) => string[]

type FieldKind = 'keep' | 'drop' | 'connection' | 'forwarding'

/** Enough for every name that real callers use; a caller that invents names pays for the classification each time. */
const MEMO_ENTRIES = 1024
const MEMO_NAME_LENGTH = 64

/**
 * Creates the one filter through which every request passes on its way to the upstream, in the one order that is safe:
 * first the caller's hop-by-hop fields and those its `Connection` names, then every spelling of the fields that this
 * server sets. Ours are appended afterwards, so nothing a caller names in `Connection` can remove them.
 *
 * RFC 9110 §7.6.1; for the order see CVE-2026-33805, for the spellings CVE-2025-64484.
 */
export function createRequestFieldFilter(options: RequestFieldOptions): RequestFieldFilter {
  const classify = createClassifier(options)
  return (fields, trustedPeer) => {
    const kept: string[] = []
    let named: Set<string> | undefined
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i] as string
      const value = fields[i + 1] as string
      const kind = classify(name)
      if (kind === 'keep' || (kind === 'forwarding' && trustedPeer)) kept.push(name, value)
      else if (kind === 'connection') named = addConnectionOptions(value, named)
    }
    return named === undefined ? kept : withoutNamed(kept, named)
  }
}

function createClassifier(options: RequestFieldOptions): (name: string) => FieldKind {
  const managed = new Set(options.managedNames)

  const isOurs = (canonical: string) =>
    HOP_BY_HOP.has(canonical) ||
    REBUILT_FORWARDING.has(canonical) ||
    managed.has(canonical) ||
    canonical.startsWith(options.identityPrefix)

  const classifyNew = (name: string): FieldKind => {
    const lower = name.toLowerCase()
    const canonical = canonicalName(name)
    const aliased = lower !== canonical
    if (lower === 'connection') return 'connection'
    if (isOurs(canonical)) return 'drop'
    if (canonical === 'authorization') return options.forwardAuthorization ? 'keep' : 'drop'
    // Spelled with another sign, no standard knows these: no trusted proxy sends such a forwarding field, and a `content_length`
    // is a second opinion on where the message ends.
    if (isForwarding(canonical)) return aliased ? 'drop' : 'forwarding'
    return aliased && isEssential(canonical) ? 'drop' : 'keep'
  }

  return memoize(classifyNew)
}

/** Remembers the answers for the names that occur first. */
function memoize(classify: (name: string) => FieldKind): (name: string) => FieldKind {
  const memo = new Map<string, FieldKind>()
  return (name) => {
    const known = memo.get(name)
    if (known !== undefined) return known
    const kind = classify(name)
    if (memo.size < MEMO_ENTRIES && name.length <= MEMO_NAME_LENGTH) memo.set(name, kind)
    return kind
  }
}

/** Adds the names listed in one `Connection` value; the two usual options name no field. */
function addConnectionOptions(value: string, named: Set<string> | undefined): Set<string> | undefined {
  if (value === 'keep-alive' || value === 'close' || value === 'Keep-Alive' || value === 'Close') return named
  const names = named ?? new Set<string>()
  for (const option of value.split(',')) {
    const name = option.trim().toLowerCase()
    if (name !== '' && !isEssential(name)) names.add(name)
  }
  return names
}

function withoutNamed(fields: FieldList, named: ReadonlySet<string>): string[] {
  const kept: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (!named.has(name.toLowerCase())) kept.push(name, fields[i + 1] as string)
  }
  return kept
}

/**
 * The fields of an upstream's response that travel back to the caller: hop-by-hop fields and those named in `Connection`
 * stay here (RFC 9110 §7.6.1). So does the length of a response that can have no body (§8.6): a caller that believes it
 * would take the next response for one.
 *
 * @param fields - flat list as received
 * @param status - of the response; without one for trailers
 */
export function keepResponseFields(fields: FieldList, status?: number): string[] {
  const kept: string[] = []
  let named = status === 204 || status === 101 ? new Set(['content-length']) : undefined
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const kind = classifyOfResponse(name)
    if (kind === 'keep') kept.push(name, fields[i + 1] as string)
    else if (kind === 'connection') named = addConnectionOptions(fields[i + 1] as string, named)
  }
  return named === undefined ? kept : withoutNamed(kept, named)
}

/**
 * The trailer fields of a request that may travel on: what no header field of its could be removed by, and nothing by which
 * a message is framed, routed or authenticated (RFC 9110 §6.5.1), since some backends make header fields of them.
 *
 * @param filter - the one through which the header fields passed
 */
export function keepRequestTrailers(trailers: FieldList, filter: RequestFieldFilter): string[] {
  const kept: string[] = []
  const passed = filter(trailers, false)
  for (let i = 0; i < passed.length; i += 2) {
    const name = passed[i] as string
    if (!isEssential(canonicalName(name))) kept.push(name, passed[i + 1] as string)
  }
  return kept
}

/** The trailer fields of a response that travel back to the caller. */
export function keepResponseTrailers(trailers: FieldList): [string, string][] {
  const kept: [string, string][] = []
  const passed = keepResponseFields(trailers)
  for (let i = 0; i < passed.length; i += 2) {
    const name = passed[i] as string
    if (!isEssential(name.toLowerCase())) kept.push([name, passed[i + 1] as string])
  }
  return kept
}

const classifyOfResponse = memoize((name): FieldKind => {
  const lower = name.toLowerCase()
  if (lower === 'connection') return 'connection'
  return HOP_BY_HOP.has(lower) ? 'drop' : 'keep'
})
