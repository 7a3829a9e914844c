# `make demo` and `make test` do all the set-up: a virtual environment in .venv, from the package index, without root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-track test-browser test-bench bench bench-determinism audit-score check docs format lock clean help

help:
	@echo "make demo     the whole chain on synthetic patches; ends with the journal's path"
	@echo "make test     the test suite"
	@echo "make test-slow, test-track, test-browser   long ones; against a real MLflow server; in a real browser"
	@echo "make bench    side by side with what you would otherwise take; README's tables of speed; about 5 minutes"
	@echo "make audit-score  how well the audit sees faults planted in the real patches"
	@echo "make check    format, lint, types, layers, docs"
	@echo "make docs     write the generated pages again"
	@echo "make clean    remove .venv, caches and the demo"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"histoproof needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@rm -rf demo
	@$(BIN)/histoproof demo --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not track and not browser and not peers" --durations=25

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

# with the extras beside, as they were when it passed
$(VENV)/.installed-track: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mlflow,tensorboard]'
	@touch $@

test-track: $(VENV)/.installed-track
	$(BIN)/python -m pytest -m track

test-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m browser

# with the loaders it is compared with
$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

test-bench: $(VENV)/.installed-bench
	$(BIN)/python -m pytest -m peers

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/readme.py

bench-determinism: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/determinism.py

audit-score: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/audit_score.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The lock: what `make test` was seen to pass with. Made on a fresh environment with all extras.
lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^-e' > constraints.txt

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
