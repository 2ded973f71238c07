#!/usr/bin/env bash
# Prints what is in the image, by the lockfile, in the format of CycloneDX. Run as deploy/sbom.sh > bearward.cdx.json
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Without the development dependencies from the outset: npm sbom --omit dev leaves out what they share with the others, too.
node -e '
  const { readFileSync, writeFileSync } = require("fs")
  const read = (name) => JSON.parse(readFileSync(name, "utf8"))
  const manifest = read("package.json")
  const lock = read("package-lock.json")
  delete manifest.devDependencies
  delete lock.packages[""].devDependencies
  for (const [name, { dev, devOptional, optional }] of Object.entries(lock.packages)) {
    if (dev || devOptional || optional) delete lock.packages[name]
  }
  writeFileSync(process.argv[1] + "/package.json", JSON.stringify(manifest))
  writeFileSync(process.argv[1] + "/package-lock.json", JSON.stringify(lock))
' "$work"
cd "$work"
npm sbom --package-lock-only --sbom-format cyclonedx 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
