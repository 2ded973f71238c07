import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/patience.ts'],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    // The library gives up after one second, which says more about how busy the machine is: see patience.ts, too.
    expect: { poll: { timeout: 10_000 } },
    pool: 'forks',
  },
})
