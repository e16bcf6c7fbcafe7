# make demo   rendered crowds through the whole workflow: results/demo
# make test   the tests                    make lint    ruff, snakefmt, mypy
# make fuzz   10,000 damaged files of every format: half an hour at most (MUTANTS=1000 for less)
# make judges   masks through the libraries of annotation tools and back, in an environment of its own: .venv-judges
# make benchmark   speed and memory, minutes: results/benchmarks      make benchmark-all   also what takes longer
# make schema regenerate what is made from src/crowdmask/config
# make clean  remove the demo's results and caches    make distclean   ... and the virtual environment
#
# Each does its own set-up into $(VENV) and repeats it when pyproject.toml or constraints.txt change. Options:
#   make demo PYTHON=python3.13 VENV=/tmp/venv CORES=4

PYTHON ?= python3
VENV ?= .venv
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Each test worker may load torch: two fit into 8 GB.
TEST_WORKERS ?= 2
MUTANTS ?= 10000
PYTEST_ARGS ?=

BIN := $(abspath $(VENV))/bin
# Rules call `crowdmask` by name.
export PATH := $(BIN):$(PATH)

READY := $(VENV)/.crowdmask-installed
READY_LINT := $(VENV)/.crowdmask-installed-lint
PIP := "$(BIN)/python" -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz judges lint format schema benchmark benchmark-all clean distclean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(READY)

# The stamp is the last thing written: an interrupted installation is repeated.
$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "make: '$(PYTHON)' not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: crowdmask needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 | head -n 1)." >&2; \
	  echo "      Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@test ! -e "$(VENV)/bin/python" || "$(VENV)/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(VENV)' was made with an older Python: remove it (make distclean) or choose another VENV=." >&2; exit 1; }
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch "$@"

$(READY_LINT): $(READY)
	$(PIP) install -c constraints.txt -e '.[test,lint]'
	@touch "$@"

demo: $(READY)
	"$(BIN)/snakemake" --cores $(CORES) demo
	@echo
	@echo "Masks:     results/demo/masks.json        (COCO, one annotation per head point)"
	@echo "Pictures:  results/demo/overlays/"
	@echo "Begin at:  results/demo/index.html        (pictures, measures, masks to look at first)"
	@echo "What else lies there: results/README.md"

# loadfile: tests of one file share their module's fixtures (a loaded model, a finished run).
test: $(READY)
	"$(BIN)/python" -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# Each batch in a process of its own, with a limit of memory and time; docs/protocols.md. FORMATS=coco for one format.
fuzz: $(READY)
	PYTHONPATH=tests$${PYTHONPATH:+:$$PYTHONPATH} "$(BIN)/python" -m fuzz --mutants $(MUTANTS) --jobs $(CORES) $(FORMATS)

# The tools' libraries want other versions than ours.
judges: $(READY)
	test -x .venv-judges/bin/python || "$(PYTHON)" -m venv .venv-judges
	.venv-judges/bin/python -m pip install -q datumaro==1.13.12 label-studio-sdk==2.1.2 supervision==0.31.2 labelme==6.3.1 \
	  faster-coco-eval==1.8.0 pycocotools==2.0.11
	CROWDMASK_JUDGES="$(abspath .venv-judges)/bin/python" \
	  "$(BIN)/python" -m pytest -n $(TEST_WORKERS) $(PYTEST_ARGS) tests/judges

lint: $(READY_LINT)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/snakefmt" --check Snakefile workflow
	"$(BIN)/mypy"

format: $(READY_LINT)
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .
	"$(BIN)/snakefmt" Snakefile workflow

schema: $(READY)
	"$(BIN)/python" -m crowdmask.config_docs schema > workflow/schemas/config.schema.json.new
	mv workflow/schemas/config.schema.json.new workflow/schemas/config.schema.json
	"$(BIN)/python" -m crowdmask.config_docs settings > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md

# On an otherwise idle machine. Into the README of the folder: python -m benchmarks --write-readme
benchmark: $(READY)
	"$(BIN)/python" -m benchmarks

benchmark-all: $(READY)
	"$(BIN)/python" -m benchmarks --all

# Other data sets' results and .snakemake (what Snakemake knows of them) may have cost days: they stay.
clean:
	rm -rf results/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find $(wildcard src tests workflow benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	@test ! -e "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || { echo "make: '$(VENV)' is no virtual environment: left alone." >&2; exit 1; }
	rm -rf "$(VENV)" src/crowdmask.egg-info
