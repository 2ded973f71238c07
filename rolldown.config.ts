import { builtinModules } from 'node:module'
import { defineConfig, type Plugin } from 'rolldown'

const NODE = '\0node:'

/**
 * Takes the modules of Node as Node itself does. An `import` of one reads every export of it at once, and one of those of
 * node:http is there to load another copy of undici when it is read: 17 ms of a start, and memory.
 */
function takeNodeModules(): Plugin {
  return {
    name: 'node-modules',
    resolveId(id) {
      const name = id.replace(/^node:/, '')
      // The bundler's own code imports `node:module`.
      if (name === 'module' || (name === id && !builtinModules.includes(name))) return undefined
      return `${NODE}${name}`
    },
    load(id) {
      if (!id.startsWith(NODE)) return undefined
      const name = JSON.stringify(`node:${id.slice(NODE.length)}`)
      return { code: `module.exports = process.getBuiltinModule(${name})`, moduleType: 'js' }
    },
  }
}

/**
 * Writes what is beyond ASCII, which is in texts alone, as escapes: a single such character makes V8 keep the text of the
 * whole file in two bytes for each.
 */
function escapeTexts(): Plugin {
  const toEscape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  return {
    name: 'escape-texts',
    // At the very end: before it, texts would be written anew. Places move within a line with such a text, and nowhere else.
    generateBundle(_options, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type === 'chunk') file.code = file.code.replace(/[\u0080-\uffff]/g, toEscape)
      }
    },
  }
}

/**
 * Few files with everything in them that runs: a hundred and sixty of our own and hundreds of libraries took most of a start.
 * What is imported when it is needed (the helper, Redis, proxies, the other commands) stays in files of its own. Nothing is
 * renamed or squeezed, so that the stacks in the log can be read.
 */
export default defineConfig({
  input: 'src/main.ts',
  platform: 'node',
  tsconfig: false,
  plugins: [takeNodeModules(), escapeTexts()],
  output: {
    dir: 'dist',
    cleanDir: true,
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: '[name].js',
    codeSplitting: { groups: [{ name: 'node', test: /^\0node:/ }] },
    comments: false,
    sourcemap: true,
    sourcemapExcludeSources: true,
  },
})
