# Verbs: setup, serve, test, test-fast, check (style + types), bench, eval, clean. Each does the set-up it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAST := not slow and not browser and not phone and not gpu
HOST ?= 127.0.0.1
PORT ?= 8000
ARGS ?=

.PHONY: setup setup-test system-packages serve test test-fast test-soak check style types bench eval clean

setup: $(VENV)/.run
setup-test: $(VENV)/.test system-packages tests/clients/node_modules/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Parley needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# The stock JavaScript client that the browser tests run, and a type checker for our own scripts.
tests/clients/node_modules/.installed: tests/clients/package.json | system-packages
	npm install --prefix tests/clients --no-audit --no-fund --no-package-lock --loglevel=error
	@touch $@

# Voices, sound tools, a browser and phones for the tests; nothing of it is needed to serve.
system-packages:
	@tests/system-packages.sh

serve: setup
	$(BIN)/parley serve --host $(HOST) --port $(PORT) $(ARGS)

test: setup-test
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

# What the tests do a little of, in full: two hundred calls in a row, ten thousand mutated messages.
test-soak: setup-test
	PARLEY_SOAK=1 $(BIN)/python -m pytest tests/transport/phone/test_sipp.py tests/transport/phone/test_fuzz.py \
	  tests/transport/test_rtc_network.py $(ARGS)

test-fast: setup-test
	$(BIN)/python -m pytest -q -m "$(FAST)" $(ARGS)

check: style types

style: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test
	$(BIN)/mypy

bench: setup-test
	$(BIN)/python -m benchmarks $(ARGS)

# What the demo model hears, answers and says, against held-out questions: a table. ARGS=--quick: a quarter of it.
eval: setup-test
	$(BIN)/python -m models.demo.recipe evaluate --checkpoint models/demo/checkpoint $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis *.egg-info
