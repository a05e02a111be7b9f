#!/bin/bash
# Brings the CRDs of a channel onto the running cluster, whichever stand there: crds.sh standard|experimental
set -euo pipefail; . "$(dirname "$0")/env.sh"
root=$(cd "$HERE/../.." && pwd)
"$HERE/in.sh" sh -c "'$root/.venv/bin/fsm' install --dry-run --channel '$1' | '$root/.venv/bin/python' -c '
import sys, yaml
print(yaml.dump_all([o for o in yaml.safe_load_all(sys.stdin) if o[\"kind\"] == \"CustomResourceDefinition\"]))' |
  kubectl apply --server-side --force-conflicts -f -" >&2
