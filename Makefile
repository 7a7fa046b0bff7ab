# Every target prepares what it needs. The machine brings Python 3.11 or newer, a C compiler and
# git; the virtual environment holds the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CC

NATIVE_SOURCES := $(wildcard */native/*.[ch])
C_SOURCES := $(filter-out %/_core.c,$(NATIVE_SOURCES)) \
  $(wildcard guest_model/linux/*.[ch] tests/fuzz/*.[ch] tests/kernel/*.[ch])
BUILD_NATIVE = $(BIN)/python -W ignore -c 'import setuptools; setuptools.setup()' \
  --quiet build_ext --inplace --force

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long test-all check lint format native pages docs bench \
  debate clean dist browser guest-kernel

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/ready: pyproject.toml emulator/native/toolchain.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 3; }
	@rm -f emulator/native/_core*.so
	@$(PYTHON) -I emulator/native/toolchain.py $(VENV) dev
	@touch $@ $(VENV)/built

# What made the environment anew has built the C core as well.
$(VENV)/built: $(VENV)/ready $(NATIVE_SOURCES)
	@$(if $(filter $(VENV)/ready,$?),,echo "building the C core" >&2; $(BUILD_NATIVE))
	@touch $@

setup: $(VENV)/built ## prepare everything, run nothing

run: setup ## run configs/quickstart.yaml
	$(BIN)/fpr run configs/quickstart.yaml

test: setup ## run the tests; those that compare with a real kernel have the machine to themselves
	$(BIN)/python -m pytest -n auto --ignore tests/kernel
	$(BIN)/python -m pytest -n 4 --ignore tests/kernel/test_truth.py tests/kernel
	$(BIN)/python -m pytest tests/kernel/test_truth.py

test-long: setup ## run what `make test` leaves out: more seeds, more orders, more comparisons
	$(BIN)/python -m pytest -n auto -m long --ignore tests/kernel
	$(BIN)/python -m pytest -n 4 -m long --ignore tests/kernel/test_truth.py tests/kernel
	$(BIN)/python -m pytest -m long tests/kernel/test_truth.py

test-all: export FPR_TEST_ALL := 1
test-all: test test-long ## all tests, with every combination, on each release of Linux

check: lint test ## what CI runs

lint: $(VENV)/ready ## style, types, arrows of imports, freshness of generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	$(BIN)/python -P emulator/native/generate.py --check

format: $(VENV)/ready ## lay out Python and C as `make lint` wants it
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_SOURCES)

native: $(VENV)/ready ## regenerate the cffi binding, then build it
	$(BIN)/python -P emulator/native/generate.py
	$(BUILD_NATIVE)
	@touch $(VENV)/built

pages: setup ## renew the pages that are made from the code
	$(BIN)/python -m tests.conformance.coverage
	$(BIN)/python -m tests.conformance.reference_pages
	$(BIN)/fpr schema > configs/scenario.schema.json
	$(BIN)/fpr schema comparison > configs/comparison.schema.json

docs: setup ## the documentation as a site and as man pages, in build/docs
	$(BIN)/sphinx-build -q -W --keep-going -E -b html docs build/docs/html
	$(BIN)/sphinx-build -q -W --keep-going -E -b man docs build/docs/man

bench: setup ## print speed and memory figures
	$(BIN)/python -m benchmarks

# Each run has a folder of its own: results never replace others.
debate: RESULTS := results/debate-$(shell date +%Y%m%dT%H%M%S)
debate: setup ## hold the claims of 2019 and 2020 against the model; some twelve minutes
	$(BIN)/fpr compare configs/will-it-scale.yaml -o $(RESULTS)/will-it-scale
	$(BIN)/fpr compare configs/debate.yaml -o $(RESULTS)/debate

browser: ## install the browser that reports are tested in, if there is none; wants root
	@command -v chromium >/dev/null || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }

guest-kernel: setup ## fetch the kernels of real guests (RELEASES="6.1 7.2"), build their agent
	$(BIN)/python -m guest_model.linux $(RELEASES)

dist: ## build what is released into dist/, and try it
	.ci/dist

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info emulator/native/*.so
