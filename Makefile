# Two commands for a fresh machine: `make demo` and `make test`. Each does all its own set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CLUSTER := tests/cluster

.PHONY: help demo test test-slow test-stores test-browser format cluster cluster-down e2e conformance bench bench-changes bench-filters bench-floods bench-grpc bench-smoke bench-peers image clean

help: ## This list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=…" >&2; exit 1; }
	@echo "setting up $(VENV): a minute, or several where the network or the machine is slow" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[controller,dev]'
	@touch $@

demo: $(READY) ## The canary on this machine: make demo ARGS="--fast --json out.json"
	@$(BIN)/fsm demo $(ARGS)

test: $(READY) ## Linters, types, and every test that needs no root: make test ARGS="-k routing"
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(READY) ## Tests that take longer than a moment
	$(BIN)/python -m pytest -m slow $(ARGS)

test-stores: $(READY) ## Limits that replicas share, with a real Redis (installed by apt where there is none)
	@command -v valkey-server redis-server >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends redis-server; } >&2
	$(BIN)/python -m pytest tests/stores $(ARGS)

test-browser: $(READY) ## The admin page in a real browser (Chromium, installed by apt where there is none)
	@command -v chromium chromium-browser google-chrome >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; } >&2
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest tests/browser $(ARGS)

format: $(READY) ## Put the code into shape
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

cluster: $(READY) ## A real Kubernetes cluster on this machine (root; 15 minutes the first time), with the image loaded
	$(CLUSTER)/preflight.sh
	$(CLUSTER)/build.sh
	$(CLUSTER)/images.sh
	$(CLUSTER)/up.sh
	$(CLUSTER)/image.sh

cluster-down: ## Stop it
	$(CLUSTER)/down.sh

# On the cluster of `make cluster`, or on yours: KUBECONFIG=… FSM_IMAGE=… make e2e
e2e: $(READY) ## The end-to-end tests
	$(if $(KUBECONFIG),,$(CLUSTER)/in.sh) $(abspath $(BIN))/python -m pytest -c tests/e2e/pytest.ini --rootdir tests/e2e tests/e2e $(ARGS)

CHANNEL ?= experimental
conformance: $(READY) ## The Gateway API's conformance suite, on the cluster of `make cluster`: make conformance CHANNEL=standard CRDS=1.6.3
	$(CLUSTER)/crds.sh $(CHANNEL) $(CRDS)
	$(CLUSTER)/in.sh $(abspath $(BIN))/fsm install --set fsm.image=localhost/fsm-gateway:dev --channel $(CHANNEL) $(if $(CRDS),--skip-crds) --timeout 2m
	CHANNEL=$(CHANNEL) CRDS=$(CRDS) $(CLUSTER)/conformance.sh $(ARGS)

bench-peers: $(READY)
	@{ command -v nginx haproxy caddy wrk h2load taskset && [ -e /usr/lib/nginx/modules/ngx_stream_module.so ]; } >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends nginx-light libnginx-mod-stream haproxy caddy wrk nghttp2-client util-linux; } >&2
	@$(BIN)/python -c 'import envoy' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'

bench: bench-peers ## Requests: every bar against its peers in the same run (installs them by apt and pip; 10 minutes)
	$(BIN)/python -m bench $(ARGS)

bench-changes: $(READY) bench-peers ## Changes: how soon in force, what they cost, whether a request notices (10 minutes)
	$(BIN)/python -m bench.changes $(ARGS)

bench-filters: $(READY) ## Filters in Python: what an edit costs others, and what a hostile one does to its neighbours (3 minutes)
	$(BIN)/python -m bench.filters $(ARGS)

bench-floods: $(READY) ## Hostile clients: what each attack does to those who ask beside it, and to memory (20 minutes)
	$(BIN)/python -m bench.floods $(ARGS)

bench-grpc: $(READY) ## Honest calls of gRPC by its Go library, 600,000 of them: none may be cut (needs go; 10 minutes)
	$(BIN)/python -m bench.grpc_calls $(ARGS)

bench-smoke: bench-peers ## That the measurements run, in two minutes
	$(BIN)/python -m bench --rounds 1 --seconds 1
	$(BIN)/python -m bench.changes --quick
	$(BIN)/python -m bench.filters --quick
	$(BIN)/python -m bench.floods --quick "rapid reset" "PING, never read" "windows of nothing" "half heads" honest

image: ## The container image, by whatever builds Dockerfiles here
	$${BUILDER:-docker} build -t fsm-gateway:dev .

clean: ## Forget the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
