/**
 * Metrics that are updated on every request, as plain numbers: the registry asks for them at a scrape. Through the
 * library's own counters and histograms they cost an object of labels and its hash for each update.
 */

type Labels = Readonly<Record<string, string>>

/** What the registry of prom-client asks of a metric. */
export interface Collected {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram'
  readonly aggregator: 'sum'
  readonly values: readonly { readonly value: number; readonly labels: Labels; readonly metricName?: string }[]
}

/** Counts requests by rule, code and class of status. */
export class RequestCounter {
  readonly #counts = new Map<string, Map<string, number[]>>()

  /** @param statusClass - first digit of the status, 1 to 5 */
  add(rule: string, code: string, statusClass: number): void {
    let byCode = this.#counts.get(rule)
    if (byCode === undefined) this.#counts.set(rule, (byCode = new Map<string, number[]>()))
    let byClass = byCode.get(code)
    if (byClass === undefined) byCode.set(code, (byClass = [0, 0, 0, 0, 0, 0]))
    byClass[statusClass] = (byClass[statusClass] ?? 0) + 1
  }

  values(): Collected['values'] {
    return [...this.#counts].flatMap(([rule, byCode]) =>
      [...byCode].flatMap(([code, byClass]) =>
        byClass.flatMap((value, digit) =>
          value === 0 ? [] : [{ value, labels: { rule, code, status_class: `${digit}xx` } }],
        ),
      ),
    )
  }
}

/** A histogram of seconds for one set of labels. */
export class Buckets {
  readonly #bounds: readonly number[]
  readonly #counts: number[]
  #sum = 0

  /** @param bounds - upper bounds in seconds, rising */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.#counts = [...bounds.map(() => 0), 0]
  }

  observe(seconds: number): void {
    const bounds = this.#bounds
    let i = 0
    while (i < bounds.length && seconds > (bounds[i] as number)) i += 1
    this.#counts[i] = (this.#counts[i] as number) + 1
    this.#sum += seconds
  }

  values(name: string, labels: Labels): Collected['values'] {
    let count = 0
    const buckets = this.#counts.map((value, i) => {
      count += value
      const le = i < this.#bounds.length ? String(this.#bounds[i]) : '+Inf'
      return { value: count, labels: { ...labels, le }, metricName: `${name}_bucket` }
    })
    return [
      ...buckets,
      { value: this.#sum, labels, metricName: `${name}_sum` },
      { value: count, labels, metricName: `${name}_count` },
    ]
  }
}
