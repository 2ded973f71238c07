# For image.sh and sizing.sh, which source it as root from the root of the repository: builds the image on stand-ins for its
# bases and runs it in a pod, as the manifests would. Leaves with 77 when containers cannot be had here, and says why. Sets
# root, work (a folder that goes away), pod and image; the caller may set OUT to keep results.
root=$PWD
# Where the npm of this machine looks for its registry; it guesses from the Node that runs it.
NPM_CONFIG_GLOBALCONFIG=${NPM_CONFIG_GLOBALCONFIG:-$(npm config get globalconfig)}
export NPM_CONFIG_GLOBALCONFIG PATH=$root/node_modules/.bin:$PATH

missing=
for tool in buildah podman runc catatonit busybox curl; do command -v "$tool" > /dev/null || missing="$missing $tool"; done
[ "$(id -u)" -eq 0 ] || missing="$missing root"
if [ -n "$missing" ]; then
  echo "skipped: the image was not built, for want of$missing"
  echo "  apt-get install -y --no-install-recommends buildah podman runc catatonit containernetworking-plugins busybox-static curl"
  exit 77
fi

work=$(mktemp -d)
out=${OUT:-$work/out}
mkdir -p "$out"
pod=bearward-test-$$ image=localhost/bearward:test-$$
export CONTAINERS_CONF=$root/test/deploy/containers.conf
# conmon leaves a file where it is started when a container runs out of memory.
cd "$work"
clean_up() {
  podman rm -f -t 0 "$pod-alone-api" "$pod-alone" > /dev/null 2>&1 || true
  podman pod rm -f "$pod" > /dev/null 2>&1 || true
  podman rmi -f "$image" "$image-again" > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

step() { echo "-- $*"; }
fail() {
  echo "image: $*" >&2
  podman logs "$pod-bearward" 2> /dev/null | tail -20 >&2 || true
  exit 1
}
# Compares: what, expected, found.
same() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }

step 'stand-ins for the bases'
bash "$root/test/deploy/stand-in-images.sh" "$(readlink -f "$(node -p process.execPath)")" \
  "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")" "$(npm config get registry)"
if ! podman run --rm --network none localhost/stand-in/runtime -e 0 > "$work/log" 2>&1; then
  cat "$work/log"
  echo "skipped: no container can be run here"
  exit 77
fi

# Builds the image, with further options.
build() {
  buildah build --isolation chroot --network host --timestamp 1700000000 --format docker --quiet "$@" \
    --build-arg BUILD_IMAGE=localhost/stand-in/build --build-arg RUNTIME_IMAGE=localhost/stand-in/runtime \
    --build-arg VERSION=0.1.0 --build-arg REVISION=test "$root" > "$work/log" 2>&1 ||
    { tail -30 "$work/log"; fail 'it cannot be built'; }
}

# Runs a container of the pod by its name: allowed what the component of deploy/kustomize allows, and with nothing at all
# that it can write to. Without systemd, podman complains that nobody will call for the health checks.
run() {
  podman run -d --pod "$pod" --name "$pod-$1" --read-only --read-only-tmpfs=false --cap-drop ALL \
    --security-opt no-new-privileges "${@:2}" > /dev/null 2> "$work/log" || { cat "$work/log"; fail "$1 cannot be run"; }
}

# Starts a pod with the sample API on 127.0.0.1 and no sidecar yet, and makes so many tokens. Sets ip.
start_pod() {
  node "$root/test/deploy/image-config.ts" "$work/config" "$1" > "$work/tokens"
  head -1 "$work/tokens" > "$work/token"
  chmod -R a+rX "$work"
  podman pod create --name "$pod" > /dev/null
  run api --user 1000 -e HOST=127.0.0.1 -v "$root/deploy/kustomize/example/app:/app:ro" localhost/stand-in/runtime /app/api.mjs
  local infra
  infra=$(podman pod inspect "$pod" --format '{{.InfraContainerID}}')
  ip=$(podman inspect "$infra" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
}

# Starts the sidecar with further options, and waits until it is ready. Sets ready_ms.
start_sidecar() {
  local started
  started=$(date +%s%N)
  run bearward --pids-limit 64 -e "POD_IP=$ip" -v "$work/config:/etc/bearward:ro" "$@" "$image"
  until curl -fs --max-time 2 "http://$ip:9090/readyz" > /dev/null; do
    [ $((($(date +%s%N) - started) / 1000000)) -lt 60000 ] || fail 'not ready within 60 s'
    sleep 0.02
  done
  ready_ms=$((($(date +%s%N) - started) / 1000000))
}

# A field of the sidecar's status in /proc.
status() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(podman inspect "$pod-bearward" --format '{{.State.Pid}}')/status"; }
