#!/usr/bin/env bash
# Builds the image of the Dockerfile on stand-ins for its bases, runs it in a pod as the manifests would, and looks at it
# from all sides. Run as root, as test/deploy/image.sh, after npm ci. Needs buildah, podman, runc, busybox and the package
# registry; what is missing is said, and then nothing is tested. OUT=FOLDER keeps the SBOM and the figures.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
export PATH=$root/node_modules/.bin:$PATH

missing=
for tool in buildah podman runc catatonit busybox; do command -v "$tool" > /dev/null || missing="$missing $tool"; done
[ "$(id -u)" -eq 0 ] || missing="$missing root"
if [ -n "$missing" ]; then
  echo "skipped: the image was not built, for want of$missing"
  echo "  apt-get install -y --no-install-recommends buildah podman runc catatonit containernetworking-plugins busybox-static"
  exit 0
fi

work=$(mktemp -d)
out=${OUT:-$work/out}
mkdir -p "$out"
pod=bearward-test-$$ image=localhost/bearward:test-$$
export CONTAINERS_CONF=$root/test/deploy/containers.conf
# conmon leaves a file where it is started when a container runs out of memory.
cd "$work"
clean_up() {
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
bash "$root/test/deploy/stand-in-images.sh" "$(readlink -f "$(node -p process.execPath)")" "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")"

build() {
  buildah build --isolation chroot --network host --timestamp 1700000000 --format docker --quiet "$@" \
    --build-arg BUILD_IMAGE=localhost/stand-in/build --build-arg RUNTIME_IMAGE=localhost/stand-in/runtime \
    --build-arg VERSION=0.1.0 --build-arg REVISION=test "$root"
}
step 'build'
seconds=$SECONDS
build --tag "$image" > "$work/build.log" 2>&1 || { tail -30 "$work/build.log"; fail 'it cannot be built'; }
echo "   built in $((SECONDS - seconds)) s"
step 'build again, from nothing: the same layers'
build --no-cache --tag "$image-again" > "$work/build.log" 2>&1
# The rest of an image in the format of Docker names the container it was made in.
layers() { podman image inspect "$1" --format '{{.RootFS.Layers}}'; }
same 'the second build' "$(layers "$image")" "$(layers "$image-again")"

step 'what is in it'
container=$(buildah from "$image")
mount=$(buildah mount "$container")
find "$mount" \( -name sh -o -name bash -o -name npm -o -name busybox -o -name typescript -o -name vitest \) > "$work/found"
[ ! -s "$work/found" ] || fail "it holds $(head -1 "$work/found")"
[ -z "$(find "$mount/app" -newermt 2023-11-15 -print -quit)" ] || fail 'files carry the time of the build'
find "$mount/app" ! -type l \( ! -uid 0 -o -perm /022 \) -printf '%u %m %P\n' > "$work/found"
[ ! -s "$work/found" ] || fail "the process could change $(head -1 "$work/found")"
app_kib=$(du -sk "$mount/app" | cut -f1)
node_kib=$(du -sk "$mount/nodejs" | cut -f1)
find "$mount/app/node_modules" -name package.json | sed -nE 's,.*/node_modules/((@[^/]+/)?[^/]+)/package.json$,\1,p' | sort > "$work/packages"
buildah umount "$container" > /dev/null
buildah rm "$container" > /dev/null
[ "$app_kib" -le 15360 ] || fail "the program takes $app_kib KiB beside Node, more than 15 MiB"
inspect() { podman image inspect "$image" --format "$1"; }
same 'user' 65532:65532 "$(inspect '{{.User}}')"
same 'entrypoint' '[/nodejs/bin/node --enable-source-maps /app/dist/main.js]' "$(inspect '{{.Config.Entrypoint}}')"
same 'label' bearward "$(inspect '{{index .Labels "org.opencontainers.image.title"}}')"
same 'version' 0.1.0 "$(inspect '{{index .Labels "org.opencontainers.image.version"}}')"
same 'stop signal' SIGTERM "$(inspect '{{.Config.StopSignal}}')"
echo "   $((app_kib / 1024)).$((app_kib % 1024 * 10 / 1024)) MiB beside $((node_kib / 1024)) MiB of Node"

step 'SBOM'
"$root/deploy/sbom.sh" > "$out/bearward.cdx.json"
node -e 'for (const { group, name } of JSON.parse(require("fs").readFileSync(process.argv[1], "utf8")).components)
  console.log(group ? `${group}/${name}` : name)' "$out/bearward.cdx.json" | sort > "$work/components"
diff "$work/packages" "$work/components" > "$work/found" || fail "packages and SBOM differ: $(cat "$work/found")"
components=$(wc -l < "$work/components")
echo "   $components components"

step 'a pod: the image as the manifests run it, the API on 127.0.0.1'
node "$root/test/deploy/image-config.ts" "$work/config" > "$work/token"
chmod -R a+rX "$work"
podman pod create --name "$pod" > /dev/null
# Allowed to run, with what the component of deploy/kustomize sets, and with nothing at all that it can write to.
run() { podman run -d --pod "$pod" --name "$pod-$1" --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges "${@:2}" > /dev/null; }
run api --user 1000 -e HOST=127.0.0.1 -v "$root/deploy/kustomize/example/app:/app:ro" localhost/stand-in/runtime /app/api.mjs
infra=$(podman pod inspect "$pod" --format '{{.InfraContainerID}}')
ip=$(podman inspect "$infra" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
started=$(date +%s%N)
run bearward --memory 192m --memory-swap 192m --pids-limit 64 -e "POD_IP=$ip" -v "$work/config:/etc/bearward:ro" "$image"
until curl -fs --max-time 2 "http://$ip:9090/readyz" > /dev/null; do
  [ $((($(date +%s%N) - started) / 1000000)) -lt 30000 ] || fail 'not ready within 30 s'
  sleep 0.02
done
ready_ms=$((($(date +%s%N) - started) / 1000000))
echo "   ready $ready_ms ms after podman was called"

step 'its confinement'
pid=$(podman inspect "$pod-bearward" --format '{{.State.Pid}}')
status() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$pid/status"; }
same 'uid' '65532	65532	65532	65532' "$(status Uid)"
same 'effective capabilities' 0000000000000000 "$(status CapEff)"
same 'bounding capabilities' 0000000000000000 "$(status CapBnd)"
same 'no new privileges' 1 "$(status NoNewPrivs)"
same 'seccomp' 2 "$(status Seccomp)"
# Lines are written out once a second at the latest.
for _ in $(seq 50); do podman logs "$pod-bearward" | grep -q '"msg":"started"' && break || sleep 0.1; done
heap=$(podman logs "$pod-bearward" | grep '"msg":"started"' | sed 's/.*"heap_limit_bytes":\([0-9]*\).*/\1/')
[ "$heap" -lt $((192 * 1024 * 1024)) ] || fail "the heap may grow to $heap bytes, beyond the memory limit"

step 'requests'
answer() { curl -s -o /dev/null --max-time 5 -w '%{http_code}' "$@" || true; }
same 'without a token' 401 "$(answer "http://$ip:8080/orders")"
same 'with a token' 200 "$(answer -H "Authorization: Bearer $(cat "$work/token")" "http://$ip:8080/orders")"
same 'a public path' 200 "$(answer "http://$ip:8080/healthz")"
same 'the API, around it' 000 "$(answer "http://$ip:3000/")"
same 'the helper, from outside' 000 "$(answer -d grant_type=refresh_token "http://$ip:8181/oauth2/token")"
same 'the drain, from outside' 403 "$(answer -X POST -H 'x-bearward-command: drain' "http://$ip:9090/drain")"

step 'health checks'
podman healthcheck run "$pod-bearward" > /dev/null || fail 'HEALTHCHECK says no'
in_it() { podman exec "$pod-bearward" /nodejs/bin/node /app/dist/main.js "$@"; }
same 'probe' ok "$(in_it probe live)"
idle_kib=$(status VmRSS | tr -dc 0-9)

step 'memory under load'
node "$root/test/deploy/image-load.ts" "http://$ip:8080/orders" "$work/token" 10 > "$work/load"
cat "$work/load"
load_kib=$(status VmRSS | tr -dc 0-9)
peak_kib=$(status VmHWM | tr -dc 0-9)
[ "$peak_kib" -lt $((192 * 1024)) ] || fail "it took $peak_kib KiB"
same 'after the load' running "$(podman inspect "$pod-bearward" --format '{{.State.Status}}')"

step 'the end: drain, then SIGTERM'
same 'drain' draining "$(in_it drain)"
same 'readiness' 503 "$(answer "http://$ip:9090/readyz")"
same 'requests while the app is there' 200 "$(answer "http://$ip:8080/healthz")"
seconds=$SECONDS
podman stop -t 20 "$pod-bearward" > /dev/null
same 'exit code' 0 "$(podman inspect "$pod-bearward" --format '{{.State.ExitCode}}')"
podman logs "$pod-bearward" | grep -q '"msg":"stopped"' || fail 'it did not say that it stopped'
echo "   stopped in $((SECONDS - seconds)) s"

cat > "$out/figures.txt" << END
image: $((app_kib / 1024)).$((app_kib % 1024 * 10 / 1024)) MiB beside Node's $((node_kib / 1024)) MiB, $components packages
start to ready: $ready_ms ms, the start of the container included
memory: $((idle_kib / 1024)) MiB idle, $((load_kib / 1024)) MiB after load, $((peak_kib / 1024)) MiB at most; limit 192 MiB
END
cat "$out/figures.txt"
