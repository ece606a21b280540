# Everything runs inside .venv; each target alone works on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-distributed peers test-peers check format wheel clean

help:
	@echo "make install           make .venv and install saelab with pinned versions"
	@echo "make demo              train a dictionary on the bundled model and browse its features"
	@echo "make test              run the tests"
	@echo "make test-distributed  run the long tests with several processes"
	@echo "make peers             make .venv-peers: saelab beside sparsify, dictionary_learning and SAELens"
	@echo "make test-peers        run the tests that need them"
	@echo "make check             ruff (lint and format) and pyright"
	@echo "make format            let ruff rewrite what it can"
	@echo "make wheel             build dist/saelab-*.whl"
	@echo "make clean             remove build and cache folders (runs and .venv stay)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "saelab needs Python 3.11 or newer: make PYTHON=python3.11 install" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/saelab demo

# TESTS narrows the run: make test TESTS="tests/cli -k help"
test: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not distributed" $(TESTS)

test-distributed: $(STAMP)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed $(TESTS)

# An environment of its own: SAELens needs an older transformer-lens. .venv is left alone.
peers: $(PEERS_STAMP)

$(PEERS_STAMP): pyproject.toml constraints-peers.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing into $(PEERS) (a few minutes the first time)"
	@$(PEERS)/bin/python -m pip install --quiet -r constraints-peers.txt
	@$(PEERS)/bin/python -m pip install --quiet --no-deps dictionary-learning==0.1.0 -e .
	@touch $@

test-peers: $(PEERS_STAMP)
	HF_HUB_OFFLINE=1 $(PEERS)/bin/python -m pytest tests/peers $(TESTS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find saelab app scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
