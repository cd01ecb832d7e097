# task-manager. `make` lists what there is. Needs only make and Python >= 3.11; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(shell find proto -name '*.proto')
CODE := servicekit auth_service task_service gateway devstack bench helm tests proto constraints deploy hatch_build.py
DOCKER ?= docker
IMAGE_TAG ?= latest
CONTROL_PLANE := tests/deploy/apiserver/tools
# What the images say about themselves.
BUILD_ARGS = --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown)
# bash, for pipefail.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Python caches compiled modules: without the cache each of the many processes that the tests start would compile them again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run keys backup restore test test-faults test-images test-apiserver test-kind check helm-lint format proto manifests bench images env compose-up compose-down constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

run: .venv/installed gen/descriptors.binpb ## the whole system on http://localhost:8080 (GATEWAY_PORT), data in .data/
	@exec $(BIN)/python -m devstack up

keys: .venv/installed ## the keys that sign access tokens, while `make run` runs: ACTION=list (the default), rotate or replace
	@$(BIN)/python -m devstack.admin keys "$(or $(ACTION),list)"

backup: .venv/installed ## back the database of `make run` up, while it runs, into .data/backups/
	@$(BIN)/python -m devstack.admin backup

restore: .venv/installed ## put a backup in the place of what `make run` has: FILE=.data/backups/…
	@$(BIN)/python -m devstack.admin restore "$(FILE)"

test: .venv/installed gen/descriptors.binpb ## the whole test suite, on an ephemeral system of its own
	@$(BIN)/pytest $(ARGS)

test-faults: .venv/installed gen/descriptors.binpb ## the long campaign of faults: FAULT_SECONDS (60), FAULT_SEED to replay one
	@$(BIN)/pytest tests/faults -m faults -s $(ARGS)

test-images: .venv/installed gen/descriptors.binpb ## build and run the images for real, without Docker: needs root and CONTAINER_LAB, and takes minutes
	@$(BIN)/pytest tests/deploy/images -m images $(ARGS)

test-apiserver: .venv/installed gen/descriptors.binpb .tools/apiserver ## the chart against a real API server, by the real Helm; no nodes: needs Go, which builds both the first time (minutes)
	@$(BIN)/pytest tests/deploy/apiserver -m apiserver $(ARGS)

test-kind: .venv/installed gen/descriptors.binpb ## the chart in a kind cluster that is there (KIND_CLUSTER), with images of the tag kind: install, helm test, upgrade, scale and roll under load
	@tests/deploy/kind/run.sh

check: .venv/installed gen/descriptors.binpb helm-lint ## what CI runs beside the tests: format, lint, types, proto lint and breaking changes, chart and manifests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir .ruff_cache/import-linter
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint gen/descriptors.binpb --config buf.yaml --path taskmanager
	$(BIN)/python proto/breaking.py
	$(BIN)/hadolint Dockerfile gateway/Dockerfile
	$(BIN)/actionlint

helm-lint: .venv/installed ## Helm's lint in every scenario; the table of values and manifests/ are as the chart says
	$(BIN)/python -m helm.lint
	$(BIN)/python -m helm.values_table --check
	$(BIN)/python -m helm.manifests --check

format: .venv/installed ## put code and protos into form
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/buf format -w proto

proto: .venv/installed ## write gen/ and docs/errors.md from proto/
	$(BIN)/python proto/generate.py
	$(BIN)/python proto/errors.py

manifests: .venv/installed ## write manifests/ and the chart's table of values from the chart
	@$(BIN)/python -m helm.values_table
	@$(BIN)/python -m helm.manifests

bench: .venv/installed gen/descriptors.binpb ## calls per second and CPU per call, beside floors: a table, and JSON in bench-results/
	@$(BIN)/python -m bench $(ARGS)

images: ## build the images of both services and the gateway: DOCKER, IMAGE_TAG
	$(DOCKER) build $(BUILD_ARGS) --target auth-service --tag task-manager/auth-service:$(IMAGE_TAG) .
	$(DOCKER) build $(BUILD_ARGS) --target task-service --tag task-manager/task-service:$(IMAGE_TAG) .
	$(DOCKER) build $(BUILD_ARGS) --file gateway/Dockerfile --tag task-manager/gateway:$(IMAGE_TAG) .

env: ## make the secrets that .env lacks, for compose
	@$(PYTHON) deploy/env.py make

# Traces go to the collector when it is there.
compose-up: ## the whole system in containers; PROFILES="observability logging" for more
	@$(PYTHON) deploy/env.py check
	@$(DOCKER) compose version >/dev/null 2>&1 || { echo "\`$(DOCKER) compose\` is not there: install Docker with its compose plugin, or name another by DOCKER" >&2; exit 2; }
	@$(if $(filter observability,$(PROFILES)),OTEL_EXPORTER_OTLP_ENDPOINT=$${OTEL_EXPORTER_OTLP_ENDPOINT:-http://otel-collector:4317}) \
	  $(DOCKER) compose $(addprefix --profile ,$(PROFILES)) up --build --detach --remove-orphans
	@$(PYTHON) deploy/wait_ready.py "$$($(DOCKER) compose port gateway 8080)"

compose-down: ## stop it; the data stays in its volumes
	@$(DOCKER) compose --profile '*' down

constraints: .venv/installed ## pin what the images are built from; ARGS=--upgrade for new versions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python constraints/compile.py $(ARGS)

clean: ## remove what was installed, generated and cached; .data/ stays
	rm -rf .venv gen dist bench-results kind-report .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml hatch_build.py proto/generate.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "task-manager needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "installing into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The install has made it already; this is for when a proto has changed since.
gen/descriptors.binpb: $(PROTOS) proto/generate.py | .venv/installed
	@$(BIN)/python proto/generate.py

# A plain `go build` has no version in it, and the chart asks for one.
.tools/apiserver: $(wildcard $(CONTROL_PLANE)/go.* $(CONTROL_PLANE)/helm/go.*)
	@echo "building a control plane of Kubernetes, and Helm, into .tools/bin ..."
	@version=$$(go list -C $(CONTROL_PLANE) -m -f '{{.Version}}' k8s.io/kubernetes); \
	  go build -C $(CONTROL_PLANE) -ldflags "-X k8s.io/component-base/version.gitVersion=$$version" -o $(CURDIR)/.tools/bin/ tool
	@mv .tools/bin/server .tools/bin/etcd
	@go build -C $(CONTROL_PLANE)/helm -o $(CURDIR)/.tools/bin/ tool
	@touch $@
