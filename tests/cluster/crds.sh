#!/bin/bash
# Brings the CRDs of a channel onto the running cluster, whichever stand there: crds.sh standard|experimental
set -euo pipefail; . "$(dirname "$0")/env.sh"
root=$(cd "$HERE/../.." && pwd)
"$HERE/in.sh" sh -c "'$root/.venv/bin/fsm' install --dry-run --channel '$1' | '$root/.venv/bin/python' -c '
import sys, yaml
print(yaml.dump_all([o for o in yaml.safe_load_all(sys.stdin) if o[\"kind\"] == \"CustomResourceDefinition\"]))' |
  kubectl apply --server-side --force-conflicts -f -" >&2
# An installation that is on its way out must be gone before another one comes.
"$HERE/in.sh" sh -c 'kubectl get ns -o jsonpath="{range .items[?(@.status.phase==\"Terminating\")]}namespace/{.metadata.name}{\"\\n\"}{end}" |
  xargs -r kubectl wait --for=delete --timeout=120s' >&2
