# Main targets: `make demo` and `make test`. Both set up .venv if it is missing or out of date.

PYTHON ?= python3
VENV := .venv
# These tests load inference engines, whose threads stay in the process. They run separately from tests that start processes.
ENGINE_TESTS := $(addprefix tests/test_,arm.py coreml.py engines_benchmark.py entrances.py executorch.py export.py fold.py latency.py mobile.py quantize.py pages.py ship_snippets.py web.py web_troubles.py)
INSTALLED := $(VENV)/.installed

.PHONY: demo test tests check format table web-demo docs docs-serve soak clean

demo: $(INSTALLED)
	rm -rf runs/digits
	$(VENV)/bin/igcv train recipes/digits.toml --out runs/digits

test: check tests

tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_OPTIONS) $(ENGINE_TESTS:%=--ignore=%)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_OPTIONS) $(ENGINE_TESTS)

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell *.md *.py docs examples igcv recipes studies tests

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Builds the documentation into site/. docs-serve serves it locally and rebuilds it after each change.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

docs-serve: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "igcv needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Serves the browser page locally. Weights: released ones (igcv3_d_100 first), otherwise the run of `make demo`.
RELEASED := $(firstword $(wildcard released/igcv3_d_100.*.safetensors) $(wildcard released/*.safetensors))
WEB_WEIGHTS ?= $(or $(RELEASED),runs/digits)
web-demo: $(INSTALLED)
	test -e $(WEB_WEIGHTS) || $(MAKE) demo
	rm -rf runs/web
	mkdir -p runs
	$(VENV)/bin/igcv web $(WEB_WEIGHTS) --out runs/web --serve 8000

# Starts or continues the trainings of the comparison table for MINUTES (default: 9), with the recipes for GPU or CPU.
# DATA names one or more data sets (default: all available), e.g. make table DATA='cifar10 cifar100' MINUTES=600
# or make table DATA=cifar10=cifar10:FOLDER. RECIPE names another recipe, e.g. RECIPE=recipes/cifar_paper.toml.
DATA ?=
RECIPE ?=
MINUTES ?= 9
table: $(INSTALLED)
	$(VENV)/bin/python -m studies.table train $(DATA:%=--data %) $(RECIPE:%=--recipe %) --minutes $(MINUTES)
	$(VENV)/bin/python -m studies.table report

# Runs the long reliability tests: about 40 minutes, as root (mounts small disks). Writes docs/reliability.md.
soak: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[soak]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m studies.soak

clean:
	rm -rf $(VENV) runs build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
