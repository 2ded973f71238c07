/**
 * Lets concurrent calls with one key share one promise, from the first call until it settles.
 *
 * @returns a function `(key, start)`: starts the work for a key unless it is under way, and returns its promise, or the
 * result when there is one at once.
 */
export function createSingleFlight<T>(): <R extends T | Promise<T>>(key: string, start: () => R) => R | Promise<T> {
  const underWay = new Map<string, Promise<T>>()
  return (key, start) => {
    const shared = underWay.get(key)
    if (shared !== undefined) return shared
    const result = start()
    if (!(result instanceof Promise)) return result
    const promise = (result as Promise<T>).finally(() => underWay.delete(key))
    underWay.set(key, promise)
    return promise
  }
}
