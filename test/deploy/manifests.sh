#!/usr/bin/env bash
# Checks the rendered manifests against the Kubernetes API (1.34) and that of the Prometheus operator: unknown fields and
# wrong types at any depth. Run as test/deploy/manifests.sh, after npm ci; needs the package registry. Exit code 77: it has
# none.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Where the npm of this machine looks for its registry and certificates; it guesses from the Node that runs it.
NPM_CONFIG_GLOBALCONFIG=${NPM_CONFIG_GLOBALCONFIG:-$(npm config get globalconfig)}
export NPM_CONFIG_GLOBALCONFIG PATH=$PWD/node_modules/.bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo '{ "private": true }' > "$work/package.json"
if ! (cd "$work" && npm install --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
  kubernetes-models@5.1.0 @kubernetes-models/prometheus-operator@6.0.0) > "$work/log" 2>&1; then
  cat "$work/log"
  echo "skipped: the types of the Kubernetes API could not be installed"
  exit 77
fi
check() { tsc --ignoreConfig --noEmit --strict --module nodenext --target es2024 --skipLibCheck "$1"; }

node test/deploy/typed.ts > "$work/manifests.ts"
check "$work/manifests.ts"

# The check itself must be able to fail.
sed 's/"readOnlyRootFilesystem"/"readOnlyRootFileSystem"/' "$work/manifests.ts" > "$work/misspelled.ts"
if check "$work/misspelled.ts" > "$work/log"; then
  echo "the check does not notice a misspelled field"
  exit 1
fi
grep -c '^export const' "$work/manifests.ts" | sed 's/$/ manifests are valid/'
