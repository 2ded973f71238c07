#!/usr/bin/env bash
# Measures the image under several limits of memory and CPU, and prints a table: the figures of deploy/README.md, "Memory and
# CPU". Run as root, as test/deploy/sizing.sh, after npm ci, on a machine that has nothing else to do. Takes three minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/deploy/containers.sh

step 'build'
build --tag "$image"
# As many as are remembered unless a configuration says otherwise.
start_pod 10000

# Megabytes of a field of the sidecar's status.
mebibytes() { echo "$(($(status "$1" | tr -dc 0-9) / 1024)) MiB"; }

# One line of the table: memory limit, CPU limit ("" for none). Anonymous memory is what the kernel cannot take back: pages of
# Node's own file are in the resident set, too, and give way when memory is short.
measure() {
  local memory=$1 cpus=$2 options idle load after state
  options=(--memory "$memory" --memory-swap "$memory")
  [ -z "$cpus" ] || options+=(--cpus "$cpus")
  start_sidecar "${options[@]}"
  sleep 2
  idle=$(mebibytes RssAnon)
  load=$(node "$root/test/deploy/image-load.ts" "http://$ip:8080/orders" "$work/tokens" 10 2>&1 | tr '\n' ' ') || true
  state=$(podman inspect "$pod-bearward" --format '{{.State.Status}} {{.State.ExitCode}}')
  if [ "$state" = 'running 0' ]; then after="$(mebibytes RssAnon) | $(mebibytes VmHWM)"; else after="$state | "; fi
  echo "| $memory | ${cpus:-none} | $ready_ms ms | $idle | $after | $load|"
  podman rm -f -t 0 "$pod-bearward" > /dev/null 2>&1
}

echo '| Memory limit | CPU limit | Ready | Anonymous, idle | after load | Resident, at most | Load |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
for memory in 64m 96m 128m 192m 256m; do measure "$memory" ''; done
for cpus in 0.05 0.1 0.25 0.5 1; do measure 192m "$cpus"; done
