# Everything sets up .venv by itself, once; a second run installs nothing.
# `make test` leaves out what is marked slow, `make test MARKS=` does not; PYTEST_ARGS="tests/attr -x" goes to pytest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MARKS ?= not slow

.PHONY: demo test check format docs tables tutorials clean

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

# the site, with the reference from the docstrings: out/site/index.html; warnings are errors
docs: $(READY)
	$(BIN)/mkdocs build --quiet --strict --clean

# tables of docs that the code writes
tables: $(READY)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/conformance.py --write

# run the tutorials and keep what they show
tutorials: $(READY)
	$(BIN)/python benchmarks/tutorials.py

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
