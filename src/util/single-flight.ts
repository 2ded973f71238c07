/**
 * Lets concurrent calls with one key share one promise, from the first call until it settles.
 *
 * @returns a function `(key, start)`: starts the work for a key unless it is under way, and returns its promise.
 */
export function createSingleFlight<T>(): (key: string, start: () => Promise<T>) => Promise<T> {
  const underWay = new Map<string, Promise<T>>()
  return (key, start) => {
    const shared = underWay.get(key)
    if (shared !== undefined) return shared
    const promise = start().finally(() => underWay.delete(key))
    underWay.set(key, promise)
    return promise
  }
}
