# make run takes a fresh clone to an evaluated, registered model; make test checks everything. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Any Python from 3.11 on: make run PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
LOG := .venv/install.log
# The installation is current while these stay the same; a moved folder breaks the scripts of a virtual environment.
WANTED := $(shell { cat requirements.lock requirements.hashes requirements-cuda.hashes pyproject.toml; echo '$(CURDIR)'; } | cksum | tr ' ' -)

.PHONY: help run plan up ui test deployed lint audit format install lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: install ## install what is missing and bring everything up to date: data, model, evaluation, registry
	@$(BIN)/quickstudy run

plan: install ## what `make run` would do and why; changes nothing
	@$(BIN)/quickstudy plan

up: install ## servers, schedules and workers on this machine, until Ctrl-C
	@exec $(BIN)/quickstudy up

ui: install ## open MLflow's and Prefect's pages on this machine
	@$(BIN)/quickstudy ui

test: lint ## lint, types and every test
	@export OMP_NUM_THREADS=1; \
	  $(BIN)/python -m pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadgroup || { \
	  echo 'make: what failed, once more and alone: SQLite beneath the tests'"'"' Prefect server locks up on busy cores' >&2; \
	  $(BIN)/python -m pytest --quiet --last-failed --last-failed-no-failures none; }

deployed: install ## tests with real servers and workers, ten minutes
	@QUICKSTUDY_DEPLOYED=1 $(BIN)/python -m pytest --quiet tests/deployed

lint: install ## ruff, mypy and the arrows between packages
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo 'make: the files above are not formatted: make format' >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }

audit: install ## known vulnerabilities of what requirements.lock names; asks PyPI
	@$(BIN)/python tests/house/audit.py

format: install ## put the code into shape
	@$(BIN)/ruff check --quiet --fix . && $(BIN)/ruff format --quiet .

# Every file has the sha256 that requirements.hashes names, what is built here is built by a checked setuptools, and
# nothing else is asked for. What a torch for CUDA needs stands in a file of its own.
CHECKED := --require-hashes --no-deps --no-build-isolation
# pip takes a build that lies beside the index (one without CUDA is a tenth in size) after all whose hash an index names.
# So the one that it would take without hashes is fetched alone, and installed where it is one of those that stand there.
TORCH_HERE = $(BIN)/pip download --no-deps --only-binary :all: --dest .venv/wheels \
    "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.hashes)" && \
  $(BIN)/pip install $(CHECKED) --no-index --find-links .venv/wheels --requirement .venv/torch.hashes && rm -r .venv/wheels
ASKS_FOR_CUDA := 'import re, sys; from importlib.metadata import requires; \
  sys.exit(not any(re.match("nvidia|cuda|triton", one) for one in requires("torch") or ()))'

install: ## the exact versions of requirements.lock into .venv, every file checked by its sha256
	@[ "$$(cat .venv/installed 2>/dev/null)" = '$(WANTED)' ] || $(MAKE) --always-make .venv/installed

.venv/installed: requirements.lock requirements.hashes requirements-cuda.hashes pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: quickstudy needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'make: $(PYTHON) cannot create virtual environments. Install its venv package (Debian: apt install python3-venv)' >&2; exit 2; }
	@[ "$$(cat .venv/folder 2>/dev/null)" = '$(CURDIR)' ] || { $(PYTHON) -m venv --clear .venv && echo '$(CURDIR)' > .venv/folder; }
	@echo "Installing what requirements.lock names into .venv; the first time takes about 3 minutes (details: $(LOG))"
	@export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1; \
	  { for name in setuptools torch; do \
	      awk "/^[^ #]/ { on = /^$$name==/ } on" requirements.hashes > .venv/$$name.hashes || exit; done; \
	    $(BIN)/pip install $(CHECKED) --requirement .venv/setuptools.hashes && \
	    { $(TORCH_HERE) || echo 'the build of torch that pip finds here is not in requirements.hashes: one of PyPI instead'; } && \
	    $(BIN)/pip install $(CHECKED) --requirement requirements.hashes && \
	    { ! $(BIN)/python -c $(ASKS_FOR_CUDA) || $(BIN)/pip install $(CHECKED) --requirement requirements-cuda.hashes; } && \
	    $(BIN)/pip install --no-deps --no-build-isolation --editable .; } > $(LOG) 2>&1 || { \
	  grep -E '^ERROR' $(LOG) >&2 || tail -n 5 $(LOG) >&2; \
	  echo 'make: the installation failed (all of it: $(LOG)). Mend that and call make again' >&2; exit 2; }
	@$(BIN)/python -c 'from pathlib import Path; from quickstudy.versions.command import keep_private; keep_private(Path.cwd())'
	@echo '$(WANTED)' > .venv/installed

lock: ## renew requirements.lock: the newest versions that pyproject.toml allows
	@rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	@.venv/lock/bin/pip install --quiet 'setuptools>=80' uv && .venv/lock/bin/pip install --quiet '.[dev]'
	@{ sed '/^[^#]/,$$d' requirements.lock; .venv/lock/bin/pip freeze --all | \
	  grep -viE '^(pip=|uv=|quickstudy\b|nvidia-|cuda-|triton\b)' | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > .venv/requirements.lock
	@mv .venv/requirements.lock requirements.lock
	@.venv/lock/bin/python tests/house/hashes.py .venv/lock/bin/uv && rm -rf .venv/lock

clean: ## remove what the pipeline can build again (stage outputs and caches), not the data, the registry or the DVC cache
	@[ ! -d .cache ] || find .cache -mindepth 1 -maxdepth 1 ! -name written -exec rm -rf {} +
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
