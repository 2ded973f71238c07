#!/usr/bin/env bash
# Makes stand-ins for the two bases of the Dockerfile, which cannot be pulled without their registries: Node on its libraries
# alone, and the same with npm and busybox. Run as stand-in-images.sh NODE_BINARY NPM_FOLDER NPM_REGISTRY.
set -euo pipefail
node=$1 npm=$2 registry=$3 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
runtime=$work/runtime build=$work/build

mkdir -p "$runtime"/{nodejs/bin,etc/ssl/certs,home/nonroot}
mkdir -m1777 "$runtime/tmp"
install -m755 "$node" "$runtime/nodejs/bin/node"
ldd "$node" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m755 "$(readlink -f "$library")" "$runtime$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$runtime/etc/ssl/certs/"
printf 'root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n' > "$runtime/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' > "$runtime/etc/group"
printf 'hosts: files dns\n' > "$runtime/etc/nsswitch.conf"
chown 65532:65532 "$runtime/home/nonroot"

cp -a "$runtime" "$build"
# The bundler's; a real base has it of the same package as the others.
librt=$(ldconfig -p | sed -n 's,.*librt\.so\.1 .* => \(.*\),\1,p' | head -1)
[ -z "$librt" ] || install -D -m755 "$(readlink -f "$librt")" "$build$librt"
mkdir -p "$build"/{bin,usr/bin,usr/local/bin,usr/local/lib/node_modules,root}
busybox=$(command -v busybox)
cp "$busybox" "$build/bin/busybox"
for applet in $("$busybox" --list); do
  [ -e "$build/bin/$applet" ] || ln -s busybox "$build/bin/$applet"
done
ln -s ../../bin/env "$build/usr/bin/env"
cp -rL "$npm" "$build/usr/local/lib/node_modules/npm"
ln -s /nodejs/bin/node "$build/usr/local/bin/node"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$build/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$build/usr/local/bin/npx"

# The same content as an image: from a folder, under a name, with settings.
image() {
  local from=$1 to=$2 container
  shift 2
  container=$(buildah from scratch)
  buildah copy -q "$container" "$from" / > /dev/null
  buildah config "$@" "$container"
  buildah commit -q --rm "$container" "$to" > /dev/null
}
image "$runtime" localhost/stand-in/runtime --user 65532 --env PATH=/nodejs/bin --entrypoint '["/nodejs/bin/node"]'
image "$build" localhost/stand-in/build --env PATH=/usr/local/bin:/bin \
  --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt --env "NPM_CONFIG_REGISTRY=$registry"
