# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
AREA ?=

BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-input -c constraints.txt
LOCKED := pyproject.toml sdk/pyproject.toml constraints.txt
PACKAGES := wire sim workloads verify ledger crdt dht recommend node

.PHONY: help setup demo test check format bench browser lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/.setup ## make .venv and install what is locked in constraints.txt

demo: .venv/.setup ## six nodes, three jobs, one cheat; e.g. make demo ARGS=--json
	@$(BIN)/quorate demo $(ARGS)

test: .venv/.test ## all tests; e.g. make test ARGS="tests/wire -x"
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),tests)

check: .venv/.check ## lint, format, types, layers, and the repository's own rules
	@echo "+ ruff check" >&2; $(BIN)/ruff check .
	@echo "+ ruff format --check" >&2; $(BIN)/ruff format --check .
	@echo "+ mypy --strict" >&2; $(BIN)/mypy --strict $(addprefix -p ,$(PACKAGES)) -p quorate
	@echo "+ lint-imports" >&2; $(BIN)/lint-imports
	@echo "+ pytest tests/repo" >&2; $(BIN)/python -m pytest -q tests/repo

format: .venv/.check ## rewrite the code in the one accepted format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: .venv/.test ## print figures as JSON lines; e.g. make bench AREA=e2e ARGS=--quick
	@test -n "$(AREA)" || { echo "make bench AREA=<one of:$$(cd benchmarks && ls -d *.py | sed '/^_/d; /^line/d; /^peers/d; /^calib/d; s/\.py//; s/^/ /' | tr -d '\n')>" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.$(AREA) $(ARGS)

browser: ## build the page for light peers, sdk/browser; needs node and npm
	@cd sdk/browser && npm ci --no-audit --no-fund --ignore-scripts --silent && node build.mjs

lock: ## rewrite constraints.txt from the newest versions that pyproject.toml allows
	@scripts/lock "$(PYTHON)"

clean: ## remove .venv, caches and outputs
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist out sdk/browser/dist sdk/browser/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || \
	  { echo "Quorate needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv >&2 || \
	  { rm -rf .venv; echo "No venv module. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.setup: .venv/.made $(LOCKED)
	@echo "installing into .venv (once; takes a minute or two)" >&2
	@$(PIP) -e . -e ./sdk >&2
	@touch $@

.venv/.test: .venv/.setup
	@$(PIP) -e '.[test]' -e ./sdk >&2
	@touch $@

.venv/.check: .venv/.test
	@$(PIP) -e '.[test,check]' -e ./sdk >&2
	@touch $@
