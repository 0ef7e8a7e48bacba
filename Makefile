# Every target works on a fresh clone; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
KIND ?= 0
VLLM_VERSION ?= 0.33.0

DATA ?= $(TRIMTAB_DATA)
EVAL := build/evaluation

.PHONY: help setup check unit test e2e vllm-next vllm-nixl demo bench eval clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Trimtab needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.local: requirements/router.txt pyproject.toml | $(BIN)/uv
	scripts/install requirements/router.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/uv
	scripts/install requirements/dev.txt
	@touch $@ $(VENV)/.local

setup: $(VENV)/.dev ## the virtual environment with all that development needs; leaves .venv/bin/trimtab

check: $(VENV)/.dev ## format, lint, types, import contracts, generated files
	scripts/check

unit: $(VENV)/.dev ## unit tests: no server, no network, under a minute
	$(BIN)/python -m pytest -q tests/unit tests/charts

test: $(VENV)/.dev ## check, unit, contract suites and the story on the real parts; builds what is missing
	scripts/test

e2e: $(VENV)/.dev ## the story alone, on a real API server and a real node; KIND=1 for kind
	KIND=$(KIND) scripts/e2e

vllm-next: $(VENV)/.dev ## all recipes against another version's own rules: VLLM_VERSION=0.33.0
	CI=true TRIMTAB_VLLM_VERSION=$(VLLM_VERSION) $(BIN)/python -m pytest -q -s tests/contract/test_recipes_vllm.py

vllm-nixl: $(VENV)/.dev ## prompts handed over between two real vLLMs on this machine (NIXL, 200 MB)
	CI=true TRIMTAB_NIXL=1 $(BIN)/python -m pytest -q -s tests/contract/test_disaggregated_vllm.py

demo: $(VENV)/.local ## the whole loop on this machine: no Kubernetes, no GPU
	$(BIN)/trimtab up -f examples/quickstart --for 90

bench: $(VENV)/.dev ## the measurements of docs/benchmarks.md
	$(BIN)/python -m benchmarks

eval: $(VENV)/.dev ## the figures of docs/evaluation.md; DATA=DIR is the folder of labelled queries, TEST=DIR one to judge on
	@test -n "$(DATA)" || { echo "make eval: DATA is not set; give the folder of labelled queries: make eval DATA=DIR (or TRIMTAB_DATA)" >&2; exit 2; }
	@mkdir -p $(EVAL)
	$(BIN)/trimtab classifier eval --train "$(DATA)" $(if $(TEST),--test "$(TEST)") --json $(EVAL)/figures.json --plots $(EVAL)

clean: ## remove the virtual environment and caches of tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
