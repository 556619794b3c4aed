# Everything sets up .venv by itself, once; a second run installs nothing.
# `make test` leaves out what is marked slow, `make test MARKS=` does not; PYTEST_ARGS="tests/attr -x" goes to pytest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MARKS ?= not slow

.PHONY: demo test check format docs clean

demo: $(READY)
	$(BIN)/xfr demo

test: $(READY)
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadscope -m "$(MARKS)" $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/conformance.py --write

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
