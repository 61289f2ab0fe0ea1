# Main targets: `make demo` and `make test`. Both set up .venv if it is missing or out of date.

PYTHON ?= python3
# Versions of the libraries, each with an environment of its own: pinned (constraints.txt), oldest (the lower bounds of
# pyproject.toml; without ExecuTorch, which needs a newer PyTorch) or newest.
LIBRARIES ?= pinned
ifeq ($(LIBRARIES),pinned)
VENV := .venv
INSTALL := -c constraints.txt -e '.[dev,executorch]'
else ifeq ($(LIBRARIES),oldest)
VENV := .venv-oldest
INSTALL := -c constraints-oldest.txt -e '.[dev]'
else ifeq ($(LIBRARIES),newest)
VENV := .venv-newest
INSTALL := --upgrade --upgrade-strategy eager -e '.[dev,executorch]'
.PHONY: .venv-newest/.installed  # there may be newer ones
else
$(error LIBRARIES: got $(LIBRARIES), expected pinned, oldest or newest)
endif
# Libraries of different years warn about each other.
ifneq ($(LIBRARIES),pinned)
PYTEST_OPTIONS += -W ignore::DeprecationWarning
endif
# These tests load inference engines, whose threads stay in the process. They run separately from tests that start processes.
ENGINE_TESTS := $(addprefix tests/test_,arm.py coreml.py engines_benchmark.py entrances.py executorch.py export.py fold.py latency.py mobile.py quantize.py pages.py ship_snippets.py web.py web_troubles.py)
INSTALLED := $(VENV)/.installed

.PHONY: demo test tests test-downloads check format table web-demo docs docs-serve soak comparison dist wheels constraints clean

demo: $(INSTALLED)
	rm -rf runs/digits
	$(VENV)/bin/igcv train recipes/digits.toml --out runs/digits

test: check tests

tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_OPTIONS) $(ENGINE_TESTS:%=--ignore=%)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_OPTIONS) $(ENGINE_TESTS)

# Downloads all weights by name and evaluates them on photos. Needs the network.
test-downloads: $(INSTALLED)
	IGCV_TEST_NETWORK=1 $(VENV)/bin/python -m pytest -n 0 -m network

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell *.md *.py docs examples igcv recipes studies tests
	$(VENV)/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/zizmor -q --offline .github

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Builds the documentation into site/. docs-serve serves it locally and rebuilds it after each change.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

docs-serve: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

$(INSTALLED): pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "igcv needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(INSTALL)
	touch $@

# Serves the browser page locally. Weights: released ones (igcv3_d_100 first, then Tiny-ImageNet), otherwise the run of `make demo`.
RELEASED := $(firstword $(wildcard released/igcv3_d_100.*.safetensors released/*.tinyimagenet.safetensors) $(wildcard released/*.safetensors))
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

# Measures IGCV3 beside today's small networks and writes docs/comparison.md. Google's converter to LiteRT needs an older
# PyTorch, so an environment of its own.
comparison:
	test -x .venv-comparison/bin/python || $(PYTHON) -m venv .venv-comparison
	.venv-comparison/bin/python -m pip install --quiet --disable-pip-version-check -e '.[comparison]'
	.venv-comparison/bin/python -m studies.comparison

RELEASE_TOOLS := $(VENV)/.release-tools
$(RELEASE_TOOLS): $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	touch $@

# Builds the source distribution and the wheel into dist/, and checks both, also in new environments.
dist: $(RELEASE_TOOLS)
	rm -rf dist
	$(VENV)/bin/python -m hatchling build
	$(VENV)/bin/twine check --strict dist/*
	IGCV_TEST_DIST=dist $(VENV)/bin/python -m pytest -n 0 tests/test_distribution.py

# Finds a wheel of every library for each platform and Python version of the workflow. Installs nothing.
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_39 aarch64-apple-darwin
wheels: $(RELEASE_TOOLS)
	set -e; for platform in $(PLATFORMS); do for python in 3.11.9 3.12 3.13 3.14; do echo "$$platform, Python $$python"; \
	MACOSX_DEPLOYMENT_TARGET=14.0 $(VENV)/bin/uv pip compile --quiet --only-binary :all: --no-binary antlr4-python3-runtime \
	-c constraints.txt --extra dev --extra executorch --python-platform $$platform --python-version $$python pyproject.toml \
	-o /dev/null; done; done

# Renews constraints.txt (the newest libraries) and constraints-oldest.txt (the lower bounds in pyproject.toml).
COMPILE := $(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --python-version 3.11.9
constraints: $(RELEASE_TOOLS)
	$(COMPILE) --upgrade --extra dev --extra executorch --extra release --extra soak pyproject.toml -o constraints.txt
	$(COMPILE) --resolution lowest-direct --extra dev pyproject.toml -o constraints-oldest.txt

# Runs the long reliability tests: about 40 minutes, as root (mounts small disks). Writes docs/reliability.md.
soak: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[soak]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m studies.soak

clean:
	rm -rf .venv .venv-oldest .venv-newest .venv-comparison runs build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
