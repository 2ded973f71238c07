// Run before start and test, by whichever Node npm found: says in one sentence when that is too old, instead of
// failing later on the first TypeScript file. Plain JavaScript, because an old Node cannot strip types.
const [major, minor] = process.versions.node.split('.').map(Number)
const supported = (major === 24 && minor >= 15) || major >= 26
if (!supported) {
  console.error(
    `bearward needs Node 24.15 or later, or 26 or later; this is ${process.versions.node}. ` +
      'Run `npm ci` with install scripts allowed for the package `node` (do not use --ignore-scripts, --omit=dev or ' +
      'NODE_ENV=production), or install a newer Node.',
  )
  process.exit(1)
}
