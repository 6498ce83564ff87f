# Every target is one line in `make help`. Each runs `make setup` first where it needs it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Workers of the tests: much of what they do is waiting for processes. A file's tests share what it starts.
JOBS ?= auto
PROTO_VENV := .tools/proto

.PHONY: help setup run cluster test check lint types format proto proto-check proto-breaking map map-write
.PHONY: config-docs metric-docs lock clean

help: ## list every target with one line
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sort | awk -F ':.*?## ' '{printf "  %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp $(PROTO_VENV)/.stamp polyglot etcd ## install everything into ignored folders

$(VENV)/.stamp: requirements/dev.lock pyproject.toml
	@echo "installing into $(VENV), a minute or two, once" >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(PROTO_VENV)/.stamp: requirements/proto.lock
	test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/proto.lock
	touch $@

run: $(VENV)/.stamp ## one broker in the foreground, data in ./data, clients on 127.0.0.1:7171
	@echo "data in ./data; Ctrl-C stops the broker; a second terminal: export PATH=\"$(CURDIR)/$(BIN):\$$PATH\"" >&2
	@exec $(BIN)/riverrun-server run --data-dir data --listen 127.0.0.1:7171

cluster: $(VENV)/.stamp etcd ## an etcd and three brokers in the foreground, data in ./data/cluster, clients on 127.0.0.1:7171, 7181, 7191
	@echo "data and logs in ./data/cluster; Ctrl-C stops everything; a second terminal: export PATH=\"$(CURDIR)/$(BIN):\$$PATH\"" >&2
	@exec $(BIN)/python tools/cluster.py

test: setup ## the CI suite: checks, then every kind of test with small rounds
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: lint types proto-check ## style, types, import contracts, generated code

lint: $(VENV)/.stamp ## ruff and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.stamp ## strict mypy
	$(BIN)/mypy

format: $(VENV)/.stamp ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(PROTO_VENV)/.stamp ## generate the checked-in protobuf code
	$(PROTO_VENV)/bin/buf format -w
	$(PROTO_VENV)/bin/python tools/proto.py

proto-check: $(PROTO_VENV)/.stamp ## lint the protos, refuse breaking changes and stale generated code
	$(PROTO_VENV)/bin/buf lint
	$(PROTO_VENV)/bin/buf format --diff --exit-code
	$(PROTO_VENV)/bin/python tools/proto.py --check
	$(PYTHON) tools/proto_breaking.py

map: $(VENV)/.stamp ## print the tree with each module's sentence
	$(BIN)/python tools/map.py

lock: ## pin the newest versions of every dependency (needs uv)
	uv pip compile --quiet --no-annotate --no-header --extra server --group dev pyproject.toml -o requirements/dev.lock
	uv pip compile --quiet --no-annotate --no-header --group proto -o requirements/proto.lock

clean: ## remove what the other targets made, data aside
	rm -rf $(VENV) .tools dist bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Parts with files of their own.
-include tests/polyglot/polyglot.mk
-include tests/metadata/etcd.mk
-include tests/e2e/proof.mk
-include tests/bench/bench.mk
-include tests/sim/sim.mk

config-docs: $(VENV)/.stamp ## write docs/configuration.md from the settings in the code
	$(BIN)/python tools/config_docs.py

map-write: $(VENV)/.stamp ## put the map into ARCHITECTURE.md
	$(BIN)/python tools/map.py --write

proto-breaking: $(PROTO_VENV)/.stamp ## refuse changes that break clients of the last release
	$(PYTHON) tools/proto_breaking.py

metric-docs: $(VENV)/.stamp ## write docs/metrics.md from the metrics in the code
	$(BIN)/python tools/metric_docs.py
