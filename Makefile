# task-manager. `make` lists the targets. It needs only make and Python >= 3.11; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(shell find proto -name '*.proto')
CODE := servicekit auth_service task_service gateway devstack bench helm client tests proto constraints deploy hatch_build.py
DOCKER ?= docker
IMAGE_TAG ?= latest
# One worker for each of two cores. Each worker has systems and databases of its own.
TEST_WORKERS ?= 2
PARALLEL = --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
CONTROL_PLANE := tests/deploy/apiserver/tools
# Version and revision for the images' labels.
BUILD_ARGS = --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown)
# bash, for pipefail.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Lets Python cache compiled modules. Without the cache, each of the many processes that the tests start would compile them again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run logs keys backup restore test test-slow test-alone test-all test-most test-beside test-faults test-images test-apiserver test-cluster check helm-lint format proto manifests bench bench-rivals bench-compare images env compose-up compose-down constraints clean test-citus

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

run: .venv/installed gen/descriptors.binpb ## run the whole system on http://localhost:8080 (GATEWAY_PORT), with its data in .data/
	@exec $(BIN)/python -m devstack up

logs: .venv/installed ## follow the logs of `make run`
	@exec $(BIN)/python -m devstack logs

keys: .venv/installed ## manage the keys that sign access tokens, while `make run` runs: ACTION=list (default), rotate or replace
	@$(BIN)/python -m devstack.admin keys "$(or $(ACTION),list)"

backup: .venv/installed ## back up the database of `make run`, while it runs, to .data/backups/
	@$(BIN)/python -m devstack.admin backup

restore: .venv/installed ## replace the data of `make run` with a backup: FILE=.data/backups/…
	@$(BIN)/python -m devstack.admin restore "$(FILE)"

test: .venv/installed gen/descriptors.binpb ## run the tests that an ordinary change needs, on temporary systems that the tests start: TEST_WORKERS (2), ARGS
	@$(BIN)/pytest -m "not slow and not alone" $(PARALLEL) $(ARGS)

test-slow: .venv/installed gen/descriptors.binpb ## run the tests marked slow (more cases of families of similar tests, other settings, a million tasks, outages), then test-alone
	@$(BIN)/pytest -m "slow and not alone" $(PARALLEL) $(ARGS)
	@$(MAKE) --no-print-directory test-alone

test-alone: .venv/installed gen/descriptors.binpb ## run the tests whose measurements other work on the machine can falsify; nothing else should use it
	@$(BIN)/pytest -m alone $(ARGS)

# Runs the tests of test and test-slow together, so that each worker starts its systems only once. They often wait, so the faults, the API server and
# the images, whose tests measure no times, use what is left of the processors; without the busy processes with which test-faults otherwise fills them.
# test-beside has a make of its own with its own jobs: by $(MAKE), `make -n` would run it.
test-all: .venv/installed gen/descriptors.binpb ## run every tier: test, test-slow, test-faults, test-images, test-apiserver
	@rm -rf test-results
	@KEEP_RESULTS=1 $(MAKE) --no-print-directory -j2 test-beside test-most ARGS=
	@$(MAKE) --no-print-directory test-alone ARGS=

test-most: .venv/installed gen/descriptors.binpb
	@$(BIN)/pytest -m "not alone" $(PARALLEL)

test-beside: .venv/installed gen/descriptors.binpb
	@FAULT_HOGS=0 MAKEFLAGS= nice -n 5 make --no-print-directory -j2 --output-sync=target test-images test-apiserver test-faults ARGS=

test-faults: .venv/installed gen/descriptors.binpb ## inject faults under load, and beside FAULT_HOGS (16) busy processes, for FAULT_SECONDS (60); FAULT_SEED replays a run
	@$(BIN)/pytest tests/faults -m faults -s $(ARGS)

# The tests of the API, and the outages of PostgreSQL, on systems whose PostgreSQL is a Citus cluster. No gate runs them, because Citus is in no package
# index: docs/citus.md says how to build it. Left out: what waits for a lock in the catalog of one server, and one code with which Citus refuses TRUNCATE.
test-citus: .venv/installed gen/descriptors.binpb ## run the tests of the API on a Citus cluster: CITUS, the folder of a PostgreSQL with Citus; ARGS
	@CITUS="$(CITUS)" $(BIN)/pytest -p tests.citus.plugin tests/contract tests/e2e -m "not slow and not alone" -k "not test_lost_answers and not many_at_once_are_one_write and not its_own_tables_stay" $(ARGS)
	@CITUS="$(CITUS)" $(BIN)/pytest -p tests.citus.plugin tests/citus tests/e2e/test_postgres_away.py -s $(ARGS)

test-images: .venv/installed gen/descriptors.binpb ## build and run the images without Docker; needs root and CONTAINER_LAB; takes minutes
	@$(BIN)/pytest tests/deploy/images -m images $(ARGS)

test-apiserver: .venv/installed gen/descriptors.binpb .tools/apiserver ## test the chart with the real Helm and API server, without nodes; the first run builds both with Go and takes minutes
	@$(BIN)/pytest tests/deploy/apiserver -m apiserver $(ARGS)

# KUBE_LAB (with CONTAINER_LAB) brings up a cluster of its own; otherwise KUBECONFIG, if it is set, names the cluster; otherwise it is kind's.
test-cluster: .venv/installed gen/descriptors.binpb ## install, upgrade, roll, evict, roll back, break and reinstall the chart under load in a real cluster: KUBE_LAB, KUBECONFIG or KIND_CLUSTER; STEPS
	@$(if $(KUBE_LAB),"$(KUBE_LAB)" up)
	@TEST_CLUSTER=$(if $(KUBE_LAB),lab,$(if $(KUBECONFIG),current,kind)) tests/deploy/kind/run.sh $(STEPS)

check: .venv/installed gen/descriptors.binpb helm-lint ## run the checks of CI that are not tests: format, lint, types, proto lint and breaking changes, chart and manifests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir .ruff_cache/import-linter
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint gen/descriptors.binpb --config buf.yaml --path taskmanager
	$(BIN)/python proto/breaking.py
	$(BIN)/hadolint Dockerfile gateway/Dockerfile
	$(BIN)/actionlint .github/workflows/*.yml

helm-lint: .venv/installed ## lint the chart in every scenario; check that the table of values and manifests/ match the chart
	$(BIN)/python -m helm.lint
	$(BIN)/python -m helm.values_table --check
	$(BIN)/python -m helm.manifests --check

format: .venv/installed ## format code and protos
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/buf format -w proto

proto: .venv/installed ## write gen/ and docs/errors.md from proto/
	$(BIN)/python proto/generate.py
	$(BIN)/python proto/errors.py

manifests: .venv/installed ## render manifests/ and the chart's table of values from the chart
	@$(BIN)/python -m helm.values_table
	@$(BIN)/python -m helm.manifests

bench: .venv/installed gen/descriptors.binpb ## measure calls per second and CPU per call and compare them with floors; prints a table, writes JSON to bench-results/
	@$(BIN)/python -m bench $(ARGS)

bench-rivals: .venv/installed gen/descriptors.binpb ## measure the rivals of the folder RIVALS (after its setup, with its PEERS_HOME) and this system in turns; print ratios and aims
	@$(BIN)/python -m bench.rivals "$(or $(RIVALS),$(error RIVALS must name the folder of the rivals))" $(ARGS)

bench-compare: .venv/installed gen/descriptors.binpb ## compare the CPU per call of two checkouts in turns: OLD (a folder with its own .venv), NEW (this folder)
	@$(BIN)/python -m bench.compare "$(or $(OLD),$(error OLD must name the folder of another checkout))" "$(or $(NEW),.)" $(ARGS)

# `localhost/` is no registry, so no engine can pull an image of a stranger by one of these names.
images: ## build the images of both services and the gateway with Docker: DOCKER, IMAGE_TAG
	$(DOCKER) build $(BUILD_ARGS) --target auth-service --tag localhost/task-manager/auth-service:$(IMAGE_TAG) .
	$(DOCKER) build $(BUILD_ARGS) --target task-service --tag localhost/task-manager/task-service:$(IMAGE_TAG) .
	$(DOCKER) build $(BUILD_ARGS) --file gateway/Dockerfile --tag localhost/task-manager/gateway:$(IMAGE_TAG) .

env: ## generate the secrets for compose that are missing in .env
	@$(PYTHON) deploy/env.py make

# With the profile observability, the services send traces to the collector.
compose-up: ## run the whole system in containers; PROFILES="observability logging" adds tools
	@$(PYTHON) deploy/env.py check
	@$(DOCKER) compose version >/dev/null 2>&1 || { echo "\`$(DOCKER) compose\` is not there: install Docker with its compose plugin, or name another by DOCKER" >&2; exit 2; }
	@$(if $(filter observability,$(PROFILES)),OTEL_EXPORTER_OTLP_ENDPOINT=$${OTEL_EXPORTER_OTLP_ENDPOINT:-http://otel-collector:4317}) \
	  $(DOCKER) compose $(addprefix --profile ,$(PROFILES)) up --build --detach --remove-orphans
	@$(PYTHON) deploy/wait_ready.py "$$($(DOCKER) compose port gateway 8080)"

compose-down: ## stop the containers; the data stays in their volumes
	@$(DOCKER) compose --profile '*' down

constraints: .venv/installed ## pin the packages in the images; ARGS=--upgrade updates their versions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python constraints/compile.py $(ARGS)

clean: ## remove everything that was installed, generated or cached; .data/ stays
	rm -rf .venv gen gateway/docs/swagger_ui dist bench-results kind-report .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml client/pyproject.toml hatch_build.py proto/generate.py gateway/docs/vendor.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "task-manager needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "installing into .venv ..."
	@.ci/install .venv --editable '.[dev]' --editable client
	@touch $@

# The install generates this file too; this rule runs if a proto has changed since.
gen/descriptors.binpb: $(PROTOS) proto/generate.py | .venv/installed
	@$(BIN)/python proto/generate.py

# A plain `go build` contains no version, but the chart requires one.
.tools/apiserver: $(wildcard $(CONTROL_PLANE)/go.* $(CONTROL_PLANE)/helm/go.*)
	@echo "building a control plane of Kubernetes, and Helm, into .tools/bin ..."
	@version=$$(go list -C $(CONTROL_PLANE) -m -f '{{.Version}}' k8s.io/kubernetes); \
	  go build -C $(CONTROL_PLANE) -ldflags "-X k8s.io/component-base/version.gitVersion=$$version" -o $(CURDIR)/.tools/bin/ tool
	@mv .tools/bin/server .tools/bin/etcd
	@go build -C $(CONTROL_PLANE)/helm -o $(CURDIR)/.tools/bin/ tool
	@touch $@
