#!/bin/bash
# Builds the Gateway API conformance suite and runs every gateway profile on the running cluster, on channel $CHANNEL.
# The features come from the GatewayClass status. The suite that can be built from Go modules is v1.6.3. On the CRDs that the
# product ships, v1.7.0, it needs --allow-crds-mismatch, and its report (conformance/reports/CHANNEL.yaml) says UNDEFINED for
# their version; with CRDS=1.6.3 it runs on its own, and the report is one that can be submitted, where the rules of submission
# want it (conformance/reports/v1.6). The log goes to $CLUSTER_HOME/conformance/log. More arguments go to the suite, as in:
# conformance.sh --run-test=HTTPRouteWeight (then the report goes beside the log).
set -euo pipefail; . "$(dirname "$0")/env.sh"
SUITE=1.6.3 CHANNEL=${CHANNEL:-experimental} CRDS=${CRDS:-}
root=$(cd "$HERE/../.." && pwd)
version=$("$root/.venv/bin/python" -c 'from importlib.metadata import version; print("v" + version("fsm-gateway"))')
case $CRDS in
  "") mismatch=--allow-crds-mismatch REPORT=${REPORT:-$root/conformance/reports/$CHANNEL.yaml} ;;
  $SUITE) mismatch= REPORT=${REPORT:-$root/conformance/reports/v${SUITE%.*}/flomesh-fsm-gateway-python/$CHANNEL-$version-default-report.yaml} ;;
  *) echo "CRDS=$CRDS: the suite is of version $SUITE" >&2; exit 2 ;;
esac
[ $# -eq 0 ] || REPORT=$CLUSTER_HOME/conformance/report.yaml
export PATH="$CLUSTER_HOME/go/bin:$PATH" GOFLAGS="-buildvcs=false -mod=mod" CGO_ENABLED=0 GOTOOLCHAIN=local
mkdir -p "$CLUSTER_HOME/src/conformance" "$CLUSTER_HOME/conformance"; cd "$CLUSTER_HOME/src/conformance"
[ -f go.mod ] || { printf 'module local/conformance\n\ngo 1.27.0\nreplace sigs.k8s.io/gateway-api => sigs.k8s.io/gateway-api v%s\n' $SUITE > go.mod
  go get sigs.k8s.io/gateway-api/conformance@v$SUITE; }
[ -x "$BIN/conformance.test" ] || { echo "building conformance.test" >&2; go test -c -o "$BIN/conformance.test" sigs.k8s.io/gateway-api/conformance; }
[ -x "$BIN/echo-basic" ] || go build -o "$BIN/echo-basic" -ldflags '-s -w' sigs.k8s.io/gateway-api/conformance/echo-basic

# The suite's backends, under the names that its manifests give them.
echo_image=registry.k8s.io/gateway-api/echo-basic
if ! $BUILDAH images -q $echo_image:v1.5.1 >/dev/null 2>&1; then
  c=$($BUILDAH from scratch); $BUILDAH copy -q "$c" "$BIN/echo-basic" /echo-basic
  $BUILDAH config --entrypoint '["/echo-basic"]' --user 65532:65532 "$c"; $BUILDAH commit -q "$c" $echo_image:v1.5.1; $BUILDAH rm "$c" >/dev/null
fi
for tag in v1.6.0-dev.2 v1.6.0-dev.3; do $BUILDAH tag $echo_image:v1.5.1 $echo_image:$tag; done
"$HERE/load.sh" $echo_image:v1.5.1 $echo_image:v1.6.0-dev.2 $echo_image:v1.6.0-dev.3

# What an earlier run has left must be gone, as its names are used again.
"$HERE/in.sh" sh -c 'kubectl get ns -o name | grep -E "/gateway-(conformance|api)-" | xargs -r kubectl delete --wait=true' >&2

# Dozens of Gateways at a time on one small node: their data planes must not ask for much of it.
"$HERE/in.sh" sh -c 'kubectl create configmap conformance -n fsm-system --from-literal=resources="requests: {cpu: 1m, memory: 16Mi}" \
  --dry-run=client -o yaml | kubectl apply -f - &&
  kubectl patch gatewayclass fsm-gateway-cls --type=merge \
    -p "{\"spec\":{\"parametersRef\":{\"group\":\"\",\"kind\":\"ConfigMap\",\"name\":\"conformance\",\"namespace\":\"fsm-system\"}}}"' >&2
PROFILES=${PROFILES:-GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP}
mkdir -p "$(dirname "$REPORT")"
cd "$CLUSTER_HOME/conformance"
"$HERE/in.sh" "$BIN/conformance.test" -test.v -test.run '^TestConformance$' --gateway-class=fsm-gateway-cls \
  --conformance-profiles="$PROFILES" $mismatch --report-output="$REPORT" \
  --usable-address=172.31.200.1 --unusable-address=192.0.2.1 \
  --organization=flomesh --project=fsm-gateway-python --version="$version" \
  --url="${PROJECT_URL:-https://flomesh.io}" --contact="${PROJECT_CONTACT:-https://github.com/flomesh-io}" "$@" \
  > "$CLUSTER_HOME/conformance/log" 2>&1 && verdict=0 || verdict=$?
grep -E '^    --- (PASS|FAIL)' "$CLUSTER_HOME/conformance/log" | awk '{ print $2 }' | sort | uniq -c
grep -E '^    --- FAIL' "$CLUSTER_HOME/conformance/log" || true
"$root/.venv/bin/python" -m tools.conformance "$REPORT" || [ $# -gt 0 ] || verdict=1 # not of a part of the suite
exit $verdict
