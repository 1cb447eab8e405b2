# make demo | test | test-all | soak | check | bench | env
#
# With PYTHON=..., or in an active virtual or conda environment, that environment is used as it is.
# Otherwise .venv is made once, from constraints.txt (the tested versions).

SHELL := /bin/sh
WORKERS ?= 2
VENV := .venv

# What the demo needs, and what the tests need beyond that.
DEMO_EXTRAS := detection
TEST_EXTRAS := detection,transformers,embeddings,points,maps,video,export,catalog,dashboard,test

ifneq ($(strip $(PYTHON)),)
  PY := $(PYTHON)
else ifneq ($(strip $(VIRTUAL_ENV)),)
  PY := $(VIRTUAL_ENV)/bin/python
else ifneq ($(strip $(CONDA_PREFIX)),)
  PY := $(CONDA_PREFIX)/bin/python
else
  PY := $(VENV)/bin/python
  OWN := yes
endif

ifeq ($(OWN),yes)
  DEMO_ENV := $(VENV)/.demo-made
  TEST_ENV := $(VENV)/.test-made
else
  DEMO_ENV := given-demo
  TEST_ENV := given-test
endif

# One thread per process: xdist brings the processes, and results are exact only for one count.
PYTEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(PY) -m pytest
PARALLEL := -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-all soak check format lint types contracts bench env clean \
        given-demo given-test

help:
	@echo "make demo [SCENE=raster LABELS=features]   the main job, end to end, into demo/"
	@echo "make test       default tests          make test-all   with the slow ones"
	@echo "make soak       long fault runs        make bench      benchmarks, by hand"
	@echo "make check      the gate: format, lint, types, import contracts, default tests"

env: $(TEST_ENV)

demo: $(DEMO_ENV)
	$(PY) examples/demo.py --output demo \
	    $(if $(SCENE),--scene "$(SCENE)") $(if $(LABELS),--labels "$(LABELS)")

test: $(TEST_ENV)
	$(PYTEST) $(PARALLEL)

test-all: $(TEST_ENV)
	$(PYTEST) $(PARALLEL) -m "not soak and not bench"

soak: $(TEST_ENV)
	$(PYTEST) -m soak

bench: $(TEST_ENV)
	$(PYTEST) -m bench -s tests/benchmarks

check: format lint types contracts test

format: $(TEST_ENV)
	$(PY) -m ruff format --check .

lint: $(TEST_ENV)
	$(PY) -m ruff check .

types: $(TEST_ENV)
	$(PY) -m mypy

contracts: $(TEST_ENV)
	$(PY) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

# $(1): extras. Prints what making the environment took, apart from the work that follows.
define install
	@started=$$(date +%s); \
	$(PY) -m pip install --disable-pip-version-check -e ".[$(1)]" -c constraints.txt && \
	touch $@ && \
	echo "environment: $$(( $$(date +%s) - started )) s, $$(( $$(du -sk $(VENV) | cut -f1) / 1024 )) MB in $(VENV)"
endef

# The first Python of 3.11 or later that runs; the tested one first.
$(VENV)/bin/python:
	@for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	    if $$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$($$name --version)"; exec $$name -m venv $(VENV); \
	    fi; \
	done; \
	echo "No Python 3.11 or later with venv was found. Install one, or give PYTHON=/path/to/python of an environment that has geodl." >&2; \
	exit 1

$(VENV)/.demo-made: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(DEMO_EXTRAS))

$(VENV)/.test-made: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(TEST_EXTRAS))
	@touch $(VENV)/.demo-made

# $(1): distributions that must be there, $(2): extras that bring them.
define look
@$(PY) -P -c "import importlib.metadata as m, sys; \
	there = {(d.name or '').lower().replace('_', '-') for d in m.distributions()}; \
	gone = [n for n in '$(1)'.split() if n not in there]; \
	sys.exit(sys.prefix + ' lacks ' + ', '.join(gone) + ': run ' + sys.executable + \
	' -m pip install -e \".[$(2)]\" -c constraints.txt' if gone else 0)"
endef

given-demo:
	$(call look,geodl torch torchvision dask rasterio geopandas lightning-fabric faster-coco-eval,$(DEMO_EXTRAS))

given-test: given-demo
	$(call look,pytest pytest-xdist pytest-timeout hypothesis mypy ruff import-linter,$(TEST_EXTRAS))

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
