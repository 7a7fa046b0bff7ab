# Every target prepares what it needs; a fresh machine wants Python >= 3.11 with venv, a C compiler, git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(wildcard emulator/native/*.[ch] guest_model/native/*.[ch] host_model/native/*.[ch])

BUILD_NATIVE = $(BIN)/python -c 'import setuptools; setuptools.setup()' --quiet build_ext --inplace --force

.DEFAULT_GOAL := help
.PHONY: help setup run test check lint native bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 3; }
	@command -v $${CC:-cc} >/dev/null || { echo "no C compiler: apt-get install gcc" >&2; exit 3; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { echo "no venv module: apt-get install python3-venv" >&2; exit 3; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/built

$(VENV)/built: $(VENV)/ready $(NATIVE_SOURCES)
	$(BUILD_NATIVE)
	@touch $@

setup: $(VENV)/built ## prepare everything, run nothing

run: setup ## run configs/quickstart.yaml
	$(BIN)/fpr run configs/quickstart.yaml

test: setup ## run the tests
	$(BIN)/python -m pytest -n auto

check: lint test ## what CI runs

lint: setup ## style, types, arrows of imports, freshness of generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -P emulator/native/generate.py --check

native: $(VENV)/ready ## regenerate the cffi binding, then build it
	$(BIN)/python -P emulator/native/generate.py
	$(BUILD_NATIVE)
	@touch $(VENV)/built

bench: setup ## print speed and memory figures
	$(BIN)/python -m benchmarks

clean: ## remove what was built
	rm -rf $(VENV) build *.egg-info emulator/native/*.so
