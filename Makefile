# make demo: data, both stages, tables and pictures.  make demo-depth, demo-mars, demo-segmentation, demo-stereo: the same for depth networks, Mars, land cover and stereo.  make app: the page in the browser.  make test: linters, types, contracts, all but the slow tests.
PYTHON ?= python3
# Compiled once, not by each of the many processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-depth demo-mars demo-segmentation demo-stereo app test test-slow clean

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt benchmarks/requirements.txt requirements-survey.txt requirements-app.txt requirements-export.txt
	$(BIN)/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m Systems.d3rsmde.demo

demo-depth: $(VENV)/.installed
	$(BIN)/python -m Systems.depth.demo

demo-mars: $(VENV)/.installed
	$(BIN)/python -m Systems.mars.demo

demo-segmentation: $(VENV)/.installed
	$(BIN)/python -m Systems.segmentation.demo

demo-stereo: $(VENV)/.installed
	$(BIN)/python -m Systems.stereo.demo

$(VENV)/.installed-app: $(VENV)/.installed requirements-app.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-app.txt
	touch $@

app: $(VENV)/.installed-app
	$(BIN)/python app.py

test: $(VENV)/.installed-tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test-slow: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m slow

# Only what can be made again without training.
clean:
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf $(VENV) Dataset/BASE_DATA_DIR/Demo Dataset/BASE_DATA_DIR/DemoDepth Dataset/BASE_DATA_DIR/DemoSegmentation Dataset/BASE_DATA_DIR/DemoStereo
	rm -rf Dataset/BASE_DATA_DIR/DemoMars Dataset/BASE_DATA_DIR/DemoMarsProducts
	@echo "removed: caches, $(VENV), the demos' data"
	@echo "left: output (trained runs), results (evaluations), other datasets; remove those by hand"
