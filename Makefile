# Every target makes its own virtual environment when it is missing:
#   make demo    see the whole pipeline at work, in minutes
#   make test    style, types, documentation, and all tests
#   make docs    the documentation as a site, in site/; a warning is an error
#   make parity  every task view of the six published benchmarks at full size against iirc 1.0.1
#   make bench   the loaders beside others; PHOTOGRAPHS=... SMALL_IMAGES=... name image folders, tars
#                of such, or shards; without them, images are drawn

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# threads that wait for each other should sleep, not spin: other work shares the processors
export OMP_WAIT_POLICY ?= passive
READY := $(VENV)/.ready

.PHONY: demo test lint types docs parity bench clean

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

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo site .pytest_cache .mypy_cache .ruff_cache
