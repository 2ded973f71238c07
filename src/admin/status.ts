/** What `GET /status` answers: the state of the process for a person, as of now. No secret, no token, no claim. */
export interface Status {
  readonly version: string
  readonly ready: boolean
  /** What readiness waits for, by name. */
  readonly waiting_for: readonly string[]
  readonly config: {
    /** When the configuration in use was loaded, in milliseconds since the Unix epoch. */
    readonly loaded_at: number
    /** The last attempt to take another into use, and why it failed if it did. */
    readonly reload: { readonly at: number; readonly problems: readonly string[] } | undefined
  }
  readonly issuers: readonly {
    readonly name: string
    readonly state: string
    /** Seconds since the issuer last confirmed its keys. */
    readonly ageSeconds: number | undefined
    readonly keys: number
    /** Scheduled fetches that failed since one succeeded. */
    readonly failures: number
  }[]
  /** What replicas share; absent where they share nothing. */
  readonly store: { readonly kind: string; readonly state: string } | undefined
}

/** The status as JSON, with times as RFC 3339 and names as in the log. */
export function renderStatus({ config: { loaded_at, reload }, issuers, ...rest }: Status): string {
  const document = {
    ...rest,
    config: {
      loaded_at: toTime(loaded_at),
      reload: reload && { at: toTime(reload.at), successful: reload.problems.length === 0, problems: reload.problems },
    },
    issuers: issuers.map(({ ageSeconds, ...issuer }) => ({ ...issuer, age_seconds: ageSeconds })),
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

function toTime(ms: number): string {
  return new Date(ms).toISOString()
}
