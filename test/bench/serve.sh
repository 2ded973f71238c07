#!/usr/bin/env bash
# Runs bearward in the foreground as the image would, for a load from outside. From the environment: PORT, UPSTREAM,
# JWKS_URL, ALG, and REMEMBERED (how many tokens; 10000 unless given); for the issuer https://issuer.test/ and the audience
# https://api.test. Metrics are on and the access log is at its default level, on standard output. Needs `npm run build`,
# unless MAIN names another file to run.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=${TMPDIR:-/tmp}/bearward-serve-$PORT
mkdir -p "$work"
cat > "$work/bearward.yaml" <<Y
issuers:
  - name: bench
    issuer: https://issuer.test/
    audience: https://api.test
    jwks_uri: $JWKS_URL
    algorithms: [$ALG]
upstream: $UPSTREAM
listen: {proxy: 127.0.0.1:$PORT, ops: 127.0.0.1:0}
identity:
  headers: [{header: x-auth-org, claim: org_id}]
drain: {delay: 0s}
limits: {token_cache_entries: ${REMEMBERED:-10000}}
Y
export NODE_ENV=production NODE_OPTIONS="--max-old-space-size-percentage=60 --max-semi-space-size=4" MALLOC_ARENA_MAX=1
exec "$here/node_modules/.bin/node" "${MAIN:-$here/dist/main.js}" serve --config "$work/bearward.yaml"
