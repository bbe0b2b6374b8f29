# Each target makes .venv and installs the project into it first, when needed.
# Nothing but Python 3.11 or later and make has to be there; choose one with PYTHON=python3.12.

BUDGET ?= small
OUT ?= runs/demo
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench clean

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(INSTALLED) ## make .venv with the project and the tools for working on it

demo: $(INSTALLED) ## train, distil and report on built-in data (BUDGET=tiny|small, OUT=runs/demo)
	$(BIN)/detdistill demo --budget $(BUDGET) --out $(OUT) $(ARGS)

test: $(INSTALLED) ## run the tests (ARGS='-k resume' for some of them)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: $(INSTALLED) ## lint, formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## bring the code into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) ## measure what training costs (ARGS=--quick for a minute)
	$(BIN)/python -m benchmarks.speed $(ARGS)

clean: ## remove .venv and caches, keep runs
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; give it as PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@
