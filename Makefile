# Every target makes its own virtual environment when it is missing:
#   make demo    see the whole pipeline at work, in minutes
#   make test    style, types, documentation, and all tests
#   make docs    the documentation as a site, in site/; a warning is an error
#   make parity  every task view of the six published benchmarks at full size against iirc 1.0.1
#   make faults  kill every command, let its writes fail, damage its files; long runs.
#                KILLS=, FAILURES=, DAMAGES= (of each command), TASKS=, EPOCHS=; figures: faults.json
#   make fuzz    broken input of every kind; CASES= (of each kind); figures: fuzz.jsonl
#   make audit   known vulnerabilities of what is installed
#   make lowest  the tests with the oldest versions that pyproject.toml allows
#   make bench   the loaders beside others; PHOTOGRAPHS=... SMALL_IMAGES=... name image folders, tars
#                of such, or shards; without them, images are drawn

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# threads that wait for each other should sleep, not spin: other work shares the processors
export OMP_WAIT_POLICY ?= passive
READY := $(VENV)/.ready

KILLS ?= 30
FAILURES ?= 10
DAMAGES ?= 10
TASKS ?= 200
EPOCHS ?= 500
CASES ?= 10000
LOWEST ?= .venv-lowest

.PHONY: demo test lint types docs parity bench faults fuzz audit lowest clean

demo: $(READY)
	$(BIN)/iirc demo --output demo

test: lint types docs
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

parity: $(READY)
	$(BIN)/python -m benchmarks.parity

bench: $(READY)
	$(BIN)/python -m benchmarks $(if $(PHOTOGRAPHS),--photographs $(PHOTOGRAPHS)) \
		$(if $(SMALL_IMAGES),--small-images $(SMALL_IMAGES))

faults: $(READY)
	$(BIN)/python -m tests.faults --kills $(KILLS) --failures $(FAILURES) --damages $(DAMAGES) \
		--report faults.json
	LONG_RUN_TASKS=$(TASKS) LONG_RUN_EPOCHS=$(EPOCHS) LONG_RUN_REPORT=long_runs.jsonl \
		$(BIN)/python -m pytest tests/faults/test_long_runs.py

fuzz: $(READY)
	FUZZ_CASES=$(CASES) FUZZ_REPORT=fuzz.jsonl $(BIN)/python -m pytest tests/faults/test_fuzz.py

audit: $(READY)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[test,docs]'
	$(LOWEST)/bin/python -m pytest

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist demo site .pytest_cache .mypy_cache .ruff_cache
