#!/bin/bash
# Builds the project's image from its Dockerfile and loads it into the running cluster.
set -euo pipefail; . "$(dirname "$0")/env.sh"
root=$(cd "$HERE/../.." && pwd)
# Where a proxy with a certificate of its own stands between here and the package index, pip must trust it.
certificates=/etc/ssl/certs/ca-certificates.crt
conf=$(mktemp); trap 'rm -f "$conf"' EXIT; printf '[global]\ncert = %s\n' "$certificates" > "$conf"
$BUILDAH bud --pull=never --network host -v "$certificates:$certificates:ro" -v "$conf:/etc/pip.conf:ro" -t "$FSM_IMAGE" "$root" >&2
"$HERE/load.sh" "$FSM_IMAGE"
