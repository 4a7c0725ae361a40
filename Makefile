# Every target creates its own virtual environment if there is none:
#   make demo    run the whole pipeline on a small dataset, in minutes
#   make test    style, types, documentation, and all tests
#   make quick   the same without the slow tests
#   make docs    build the documentation as a site, in site/; warnings are errors
#   make parity  compare every task view of the six published benchmarks, full size, with iirc 1.0.1
#   make faults  kill every command, make its writes fail, damage its files; then long runs.
#                KILLS=, FAILURES= and DAMAGES= are per command; TASKS= and EPOCHS= are of the long
#                runs; results: faults.json, long_runs.jsonl
#   make fuzz    broken input of every kind; CASES= is per kind; results: fuzz.jsonl
#   make audit   known vulnerabilities of the installed packages
#   make lowest  all tests with the oldest versions that pyproject.toml allows
#   make rehearse  run the acceptance for GPUs at small size on the CPU; results: rehearsal/
#   make bench   compare the loaders with others; PHOTOGRAPHS= and SMALL_IMAGES= name image folders,
#                tars of image folders, or shards; by default images are drawn

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# waiting threads sleep instead of spinning, because other work shares the processors
export OMP_WAIT_POLICY ?= passive
READY := $(VENV)/.ready

KILLS ?= 30
FAILURES ?= 10
DAMAGES ?= 10
TASKS ?= 200
EPOCHS ?= 500
CASES ?= 10000
LOWEST ?= .venv-lowest
# a process per core; each file is run by one, because tests of a file share what they prepare
PYTEST = -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test quick lint types docs parity rehearse bench faults fuzz audit lowest clean

demo: $(READY)
	$(BIN)/iirc demo --output demo

test: lint types docs
	$(BIN)/python $(PYTEST)

quick: lint types docs
	$(BIN)/python $(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

parity: $(READY)
	$(BIN)/python -m benchmarks.parity

rehearse: $(READY)
	$(BIN)/python -m benchmarks.gpu_acceptance rehearsal --rehearse

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
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/audited.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audited.txt

lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[test,docs]'
	$(LOWEST)/bin/python $(PYTEST)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist demo site rehearsal .pytest_cache .mypy_cache .ruff_cache
