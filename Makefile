PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
# A machine that keeps Python from storing compiled modules would compile them again in every process of the tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-campaigns check check-faults lint clean

# Python compiles a module when it is first imported; compiling all 23,000 files at once would take most of a minute.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Refit needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[quickstart,encoder,dev]'
	touch $(STAMP)

demo: $(STAMP)  ## install, run configs/quickstart.yaml, print the summary table and where the report is
	$(BIN)/refit run configs/quickstart.yaml --yes

# Each process takes whole files, so that the fixtures of a file are made once; tests/conftest.py says how many processes
# there are and which files come first.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## the whole test suite
	$(PYTEST)

test-campaigns: $(STAMP)  ## the tests that run a whole campaign: about ten minutes
	$(BIN)/python -m pytest --campaigns -m campaign

check: $(STAMP) lint  ## ruff, pyright and the fast tests
	$(PYTEST) -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pyright

check-faults: $(STAMP)  ## kill the quickstart five times, finish it, compare with a quiet run
	$(BIN)/python -m benchmarks.check_faults --config configs/quickstart.yaml --kills 5 --out benchmarks/results/check_faults.json

clean:
	rm -rf $(VENV) build *.egg-info
