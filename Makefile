# make demo: data, both stages, tables and pictures.  make test: linters, types, all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m Systems.d3rsmde.demo

test: $(VENV)/.installed-tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy Modules Utils Systems
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

clean:
	rm -rf $(VENV) output results Dataset/BASE_DATA_DIR/Demo
