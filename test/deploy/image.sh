#!/usr/bin/env bash
# Builds the image of the Dockerfile on stand-ins for its bases, runs it in a pod as the manifests would, and looks at it
# from all sides. Run as root, as test/deploy/image.sh, after npm ci. Needs buildah, podman, runc, busybox and the package
# registry; what is missing is said, with exit code 77. OUT=FOLDER keeps the SBOM and the figures.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/deploy/containers.sh

step 'build'
seconds=$SECONDS
build --tag "$image"
echo "   built in $((SECONDS - seconds)) s"
step 'build again, from nothing: the same layers'
build --no-cache --tag "$image-again"
# The rest of an image in the format of Docker names the container it was made in.
layers() { podman image inspect "$1" --format '{{.RootFS.Layers}}'; }
same 'the second build' "$(layers "$image")" "$(layers "$image-again")"

step 'what is in it'
container=$(buildah from "$image")
mount=$(buildah mount "$container")
find "$mount" \( -name sh -o -name bash -o -name npm -o -name busybox -o -name typescript -o -name vitest -o -name rolldown \) > "$work/found"
[ ! -s "$work/found" ] || fail "it holds $(head -1 "$work/found")"
[ -z "$(find "$mount/app" -newermt 2023-11-15 -print -quit)" ] || fail 'files carry the time of the build'
find "$mount/app" ! -type l \( ! -uid 0 -o -perm /022 \) -printf '%u %m %P\n' > "$work/found"
[ ! -s "$work/found" ] || fail "the process could change $(head -1 "$work/found")"
app_kib=$(du -sk "$mount/app" | cut -f1)
node_kib=$(du -sk "$mount/nodejs" | cut -f1)
# What runs is in dist; of the packages in it, the rest says whose they are.
find "$mount/app/node_modules" -type f ! -name package.json ! -iname 'licen[cs]e*' ! -iname 'notice*' > "$work/found"
[ ! -s "$work/found" ] || fail "it holds $(head -1 "$work/found")"
find "$mount/app/node_modules" -name package.json | sed -nE 's,.*/node_modules/((@[^/]+/)?[^/]+)/package.json$,\1,p' | sort > "$work/packages"
buildah umount "$container" > /dev/null
buildah rm "$container" > /dev/null
[ "$app_kib" -le 15360 ] || fail "the program takes $app_kib KiB beside Node, more than 15 MiB"
inspect() { podman image inspect "$image" --format "$1"; }
same 'user' 65532:65532 "$(inspect '{{.User}}')"
same 'entrypoint' '[/nodejs/bin/node /app/dist/main.js]' "$(inspect '{{.Config.Entrypoint}}')"
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
start_pod 2000
start_sidecar --memory 192m --memory-swap 192m
echo "   ready $ready_ms ms after podman was called"

step 'its confinement'
same 'uid' '65532	65532	65532	65532' "$(status Uid)"
same 'effective capabilities' 0000000000000000 "$(status CapEff)"
same 'bounding capabilities' 0000000000000000 "$(status CapBnd)"
same 'no new privileges' 1 "$(status NoNewPrivs)"
same 'seccomp' 2 "$(status Seccomp)"
in_it() { podman exec "$pod-bearward" /nodejs/bin/node "$@"; }
same 'files it can write' '' "$(in_it -e '
  for (const folder of ["/", "/app", "/app/dist", "/etc", "/etc/bearward", "/home/nonroot", "/tmp", "/nodejs/bin"]) {
    try { fs.writeFileSync(folder + "/written", ""); console.log(folder) } catch {}
  }')"
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
bearward() { in_it /app/dist/main.js "$@"; }
for word in startup live ready; do same "probe $word" ok "$(bearward probe "$word")"; done
idle_kib=$(status VmRSS | tr -dc 0-9)

step 'memory under load'
node "$root/test/deploy/image-load.ts" "http://$ip:8080/orders" "$work/tokens" 10 | sed 's/^/   /'
load_kib=$(status VmRSS | tr -dc 0-9)
peak_kib=$(status VmHWM | tr -dc 0-9)
[ "$peak_kib" -lt $((192 * 1024)) ] || fail "it took $peak_kib KiB"
same 'after the load' running "$(podman inspect "$pod-bearward" --format '{{.State.Status}}')"

step 'the end: drain, then SIGTERM'
same 'drain' draining "$(bearward drain)"
same 'readiness' 503 "$(answer "http://$ip:9090/readyz")"
same 'requests while the app is there' 200 "$(answer "http://$ip:8080/healthz")"
seconds=$SECONDS
podman stop -t 20 "$pod-bearward" > /dev/null 2> "$work/log"
same 'exit code' 0 "$(podman inspect "$pod-bearward" --format '{{.State.ExitCode}}')"
podman logs "$pod-bearward" | grep -q '"msg":"stopped"' || fail 'it did not say that it stopped'
echo "   stopped in $((SECONDS - seconds)) s"

step 'the way of deploy/compose: the API in the network of bearward'
podman pod rm -f "$pod" > /dev/null 2>&1 || true
podman run -d --name "$pod-alone" --read-only --cap-drop ALL --security-opt no-new-privileges --memory 192m --pids-limit 64 \
  -p 127.0.0.1::8080 -v "$work/config:/etc/bearward:ro" "$image" > /dev/null 2> "$work/log"
podman run -d --name "$pod-alone-api" --network "container:$pod-alone" --read-only --cap-drop ALL --user 1000 \
  -e HOST=127.0.0.1 -v "$root/deploy/kustomize/example/app:/app:ro" localhost/stand-in/runtime /app/api.mjs > /dev/null
port=$(podman port "$pod-alone" 8080/tcp | cut -d: -f2)
for _ in $(seq 100); do [ "$(answer "http://127.0.0.1:$port/healthz")" != 200 ] || break; sleep 0.1; done
same 'a published port' 200 "$(answer -H "Authorization: Bearer $(cat "$work/token")" "http://127.0.0.1:$port/orders")"
same 'without a token' 401 "$(answer "http://127.0.0.1:$port/orders")"
cat > "$out/figures.txt" << END
image: $((app_kib / 1024)).$((app_kib % 1024 * 10 / 1024)) MiB beside Node's $((node_kib / 1024)) MiB, $components packages
start to ready: $ready_ms ms, the start of the container included
memory: $((idle_kib / 1024)) MiB idle, $((load_kib / 1024)) MiB after load, $((peak_kib / 1024)) MiB at most; limit 192 MiB
END
cat "$out/figures.txt"
