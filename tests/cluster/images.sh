#!/bin/bash
# Makes the base images without a registry: pause, python:3.11-slim (Debian's own Python, by debootstrap), CoreDNS.
# About a minute. Result: $IMAGES/*.tar, and the same in buildah's store, so that `FROM python:3.11-slim` works with --pull=never.
set -euo pipefail; . "$(dirname "$0")/env.sh"
export PATH="$CLUSTER_HOME/go/bin:$PATH"; mkdir -p "$IMAGES" "$CLUSTER_HOME/src/pause"; cd "$CLUSTER_HOME"
have() { $BUILDAH images -q "$1" >/dev/null 2>&1; }
single() { # image binary: FROM scratch, one static binary
  have "$1" && return; local c; c=$($BUILDAH from scratch); $BUILDAH copy -q "$c" "$2" "/$(basename "$2")"
  $BUILDAH config --entrypoint "[\"/$(basename "$2")\"]" --user "${3:-0:0}" "$c"; $BUILDAH commit -q "$c" "$1"; $BUILDAH rm "$c" >/dev/null; }
if [ ! -x "$BIN/pause" ]; then
  cp "$HERE/pause.go" src/pause/main.go; (cd src/pause; [ -f go.mod ] || printf 'module local/pause\n\ngo 1.27.0\n' > go.mod; CGO_ENABLED=0 go build -ldflags '-s -w' -o "$BIN/pause" .)
fi
single localhost/pause:1 "$BIN/pause" 65535:65535
single registry.k8s.io/coredns/coredns:v1.12.2 "$BIN/coredns"
if ! have docker.io/library/python:3.11-slim; then
  if [ ! -d rootfs/usr/bin ]; then
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm rootfs > debootstrap.log 2>&1
    rm -rf rootfs/var/cache/apt/archives/*.deb rootfs/var/lib/apt/lists/* rootfs/usr/share/{doc,man,locale}/* rootfs/usr/lib/python3.*/EXTERNALLY-MANAGED
    ln -sf ../../bin/python3 rootfs/usr/local/bin/python; ln -sf ../../bin/python3 rootfs/usr/local/bin/python3
  fi
  c=$($BUILDAH from scratch); $BUILDAH add -q "$c" rootfs /
  $BUILDAH config --cmd '["python3"]' --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin --env LANG=C.UTF-8 "$c"
  $BUILDAH commit -q "$c" docker.io/library/python:3.11-slim; $BUILDAH rm "$c" >/dev/null
fi
save() { [ -f "$IMAGES/$1.tar" ] || { rm -f "$IMAGES/$1.tmp"; $BUILDAH push -q "$2" "docker-archive:$IMAGES/$1.tmp:$2"; mv "$IMAGES/$1.tmp" "$IMAGES/$1.tar"; }; }
save pause localhost/pause:1; save coredns registry.k8s.io/coredns/coredns:v1.12.2; save python docker.io/library/python:3.11-slim
ls -la "$IMAGES" >&2
