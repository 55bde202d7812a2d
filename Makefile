# Everything a developer does with this repository; `make help` lists it.
# Paths are relative, so that a directory with a space in its name works.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
# The tools of the virtual environment first: Go is there when the system has none that will do.
VENV := PATH="$$PWD/.venv/bin:$$PATH"
PYTEST := $(VENV) $(PYTHON) -m pytest

# What to run in place of the image that `make demo` builds, e.g. IMAGE=alpine:latest
IMAGE ?=
# Runs of each side in `make bench`.
N ?= 10
# More for pytest, e.g. ARGS='-k exec -x'
ARGS ?=

.PHONY: help
help: ## List what can be made
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Install what is needed: Debian packages, .venv, the agent (again: does nothing)
	@scripts/setup dev

.PHONY: demo
demo: ## Run a container and show its kernel beside the host's [IMAGE=alpine:latest]
	@scripts/setup demo
	@scripts/demo "$(IMAGE)"

.PHONY: test
test: ## Run everything: check, unit, integration and VM tests, go test -race [ARGS='-k exec']
test: lint test-python test-go

.PHONY: check
check: ## Run the linters, the type checkers and the unit tests, in under a minute
check: lint test-unit

.PHONY: lint
lint: ## Run the linters and the type checkers [-k: go on after a failure]
lint: lint-ruff lint-mypy lint-pyright lint-imports lint-go

.PHONY: lint-ruff
lint-ruff: setup
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

.PHONY: lint-mypy
lint-mypy: setup
	$(PYTHON) -m mypy

.PHONY: lint-pyright
lint-pyright: setup
	$(PYTHON) -m pyright

.PHONY: lint-imports
lint-imports: setup
	$(VENV) lint-imports --no-cache

.PHONY: lint-go
lint-go: setup
	@$(VENV); files=$$("$$(go env GOROOT)/bin/gofmt" -l agent switch tests); \
	if [ -n "$$files" ]; then printf 'gofmt would change:\n%s\n' "$$files" >&2; exit 1; fi
	@for module in agent switch; do \
	  (set -x; cd $$module && PATH="$$PWD/../.venv/bin:$$PATH" go vet ./...); done

.PHONY: fmt
fmt: setup ## Format the Python and Go code
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format .
	$(VENV); "$$(go env GOROOT)/bin/gofmt" -w agent switch tests

.PHONY: test-unit
test-unit: setup ## Run the unit tests: no root, network or VM
	$(PYTEST) -n auto tests/unit $(ARGS)

.PHONY: test-vm
test-vm: setup ## Run the tests that boot virtual machines
	$(PYTEST) tests/vm $(ARGS)

.PHONY: test-python
test-python: setup
	$(PYTEST) $(ARGS)

.PHONY: test-go
test-go: setup
	@for module in agent switch; do \
	  (set -x; cd $$module && PATH="$$PWD/../.venv/bin:$$PATH" CGO_ENABLED=1 go test -race ./...); done

.PHONY: bench
bench: setup ## Measure against Docker, side by side [N=10]
	$(VENV) $(PYTHON) -m benchmarks.run --runs "$(N)"
	$(VENV) $(PYTHON) -m benchmarks.memory
	$(VENV) $(PYTHON) -m benchmarks.files
	$(VENV) $(PYTHON) -m benchmarks.network

.PHONY: kernel
kernel: setup ## Build our own guest kernel from source (not needed: Debian's is the default)
	$(VENV) scripts/build-kernel

.PHONY: proto
proto: setup ## Generate the code of proto/ (checked in)
	$(VENV) scripts/proto

.PHONY: clean
clean: ## Remove what was built or installed here: build, .venv, caches
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis src/woodlot/guest/bin src/woodlot/network/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
