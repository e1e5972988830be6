# `make search` and `make test` need Python >= 3.11 and nothing else: each sets up .venv
# when it is absent or setup.py has changed.

PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed
WORKDIR ?= runs/enas_micro_digits
ARGS ?=

.DELETE_ON_ERROR:
.PHONY: help search smoke test lint format clean

help:
	@echo "make search   search for a cell on digits, retrain it, print the table"
	@echo "make smoke    the same with the smallest settings, in a temporary folder"
	@echo "make test     run the tests          (ARGS='tests/controller -m slow' for others)"
	@echo "make lint     check style and format (make format puts them right)"
	@echo "make clean    remove .venv and caches; runs/ stays"

$(INSTALLED): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "Python 3.11 or newer is needed, this is " + sys.version.split()[0] \
	  + "; name another with: make PYTHON=python3.12 ...")'
	$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

# Both commands continue: after an interruption, the same `make search` goes on.
search: $(INSTALLED)
	$(RUN) -m launch.search --config=configs/enas_micro_digits.py --workdir=$(WORKDIR)
	$(RUN) -m launch.retrain --workdir=$(WORKDIR)

smoke: $(INSTALLED)
	set -e; workdir=$$(mktemp -d); trap 'rm -rf "$$workdir"' EXIT; \
	$(RUN) -m launch.search --config=configs/enas_micro_digits.py:smoke --workdir="$$workdir"; \
	$(RUN) -m launch.retrain --workdir="$$workdir"

test: $(INSTALLED)
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 $(ARGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
