#!/bin/bash
# Brings the Gateway API's CRDs of a channel onto the running cluster, in place of those that stand there:
#   crds.sh standard|experimental            ours, as `fsm install` brings them
#   crds.sh standard|experimental VERSION    those of a release, from its Go module
# Where another version or channel stands, its objects go with its CRDs: fields that the other one lacks would be lost anyway.
set -euo pipefail; . "$(dirname "$0")/env.sh"
root=$(cd "$HERE/../.." && pwd)
channel=$1 version=${2:-}
wanted=$(mktemp); trap 'rm -f "$wanted"' EXIT
if [ -n "$version" ]; then
  export PATH="$CLUSTER_HOME/go/bin:$PATH" GOFLAGS=-mod=mod GOTOOLCHAIN=local
  folder=$(cd / && go mod download -json "sigs.k8s.io/gateway-api@v$version" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
  for file in "$folder/config/crd/$channel"/gateway.*.yaml; do cat "$file"; echo ---; done
else
  "$root/.venv/bin/fsm" install --dry-run --channel "$channel"
fi | "$root/.venv/bin/python" -c '
import sys, yaml
print(yaml.dump_all([o for o in yaml.safe_load_all(sys.stdin) if o and o["kind"] == "CustomResourceDefinition"]))' > "$wanted"

# name version channel, of those of the Gateway API: what stands and is not wanted goes first.
marks='{range .items[*]}{.metadata.name} {.metadata.annotations.gateway\.networking\.k8s\.io/bundle-version} {.metadata.annotations.gateway\.networking\.k8s\.io/channel}{"\n"}{end}'
"$HERE/in.sh" kubectl get crd -o jsonpath="$marks" | "$root/.venv/bin/python" -c '
import sys, yaml
group = "gateway.networking.k8s.io"
wanted = {(o["metadata"]["name"], *(o["metadata"].get("annotations", {}).get(f"{group}/{k}") for k in ("bundle-version", "channel")))
          for o in yaml.safe_load_all(open(sys.argv[1])) if o}
standing = {tuple(line.split()) for line in sys.stdin if len(line.split()) == 3}
print("\n".join(sorted(name for name, *rest in standing if (name, *rest) not in wanted)))' "$wanted" |
  xargs -r "$HERE/in.sh" kubectl delete crd --wait=true >&2
"$HERE/in.sh" sh -c 'kubectl apply --server-side --force-conflicts -f -' < "$wanted" >&2
# An installation that is on its way out must be gone before another one comes.
"$HERE/in.sh" sh -c 'kubectl get ns -o jsonpath="{range .items[?(@.status.phase==\"Terminating\")]}namespace/{.metadata.name}{\"\\n\"}{end}" |
  xargs -r kubectl wait --for=delete --timeout=120s' >&2
