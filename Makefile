# task-manager. `make` lists what there is. Needs only make and Python >= 3.11; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(shell find proto -name '*.proto')
CODE := servicekit auth_service task_service gateway devstack bench tests proto hatch_build.py
# bash, for pipefail.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run backup restore test test-faults check format proto bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

run: .venv/installed gen/descriptors.binpb ## the whole system on http://localhost:8080 (GATEWAY_PORT), data in .data/
	@exec $(BIN)/python -m devstack up

backup: .venv/installed ## back the database of `make run` up, while it runs, into .data/backups/
	@$(BIN)/python -m devstack.backup backup

restore: .venv/installed ## put a backup in the place of what `make run` has: FILE=.data/backups/…
	@$(BIN)/python -m devstack.backup restore "$(FILE)"

test: .venv/installed gen/descriptors.binpb ## the whole test suite, on an ephemeral system of its own
	@$(BIN)/pytest $(ARGS)

test-faults: .venv/installed gen/descriptors.binpb ## the long campaign of faults: FAULT_SECONDS (60), FAULT_SEED to replay one
	@$(BIN)/pytest tests/faults -m faults -s $(ARGS)

check: .venv/installed gen/descriptors.binpb ## what CI runs beside the tests: format, lint, types, proto lint and breaking changes
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint gen/descriptors.binpb --config buf.yaml --path taskmanager
	$(BIN)/python proto/breaking.py

format: .venv/installed ## put code and protos into form
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/buf format -w proto

proto: .venv/installed ## write gen/ from proto/
	$(BIN)/python proto/generate.py

bench: .venv/installed gen/descriptors.binpb ## calls per second and CPU per call, beside floors: a table, and JSON in bench-results/
	@$(BIN)/python -m bench $(ARGS)

clean: ## remove what was installed, generated and cached; .data/ stays
	rm -rf .venv gen dist bench-results .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
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
