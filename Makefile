# Every target sets up what it needs, into .venv/ in this folder: Python 3.11+ with its venv module and make are all that must be there.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench bench-scoring bench-training bench-corpus bench-rewriting bench-audit bench-statistics bench-report soak wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

$(VENV)/.synced: $(BIN)/uv pyproject.toml uv.lock
	$(BIN)/uv sync --frozen --inexact --quiet
	@touch $@

setup: $(VENV)/.synced ## install everything into .venv/

demo: setup ## finetune a small model and see what moved (about 4 minutes)
	$(BIN)/lmdissect demo --out runs/demo

test: setup ## run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup ## style, types, import rules
	$(BIN)/ruff check src tests benchmarks experiments examples
	$(BIN)/ruff format --check src tests benchmarks experiments examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: bench-scoring bench-training bench-corpus bench-rewriting bench-audit bench-statistics bench-report ## every benchmark, each beside its peers; writes docs/benchmarks*.md

bench-scoring: $(VENV)/.benched ## speed and memory of scoring (about 30 minutes)
	$(BIN)/python benchmarks/scoring.py

bench-training: $(VENV)/.benched ## speed and memory of training (needs the research data)
	$(BIN)/python benchmarks/training.py

bench-corpus: $(VENV)/.benched ## PubMed XML: records a second, memory, exactness
	$(BIN)/python benchmarks/pubmed.py

bench-rewriting: $(VENV)/.benched ## what rewriting adds to the server's time; storms and kills
	$(BIN)/python benchmarks/rewriting.py

bench-audit: $(VENV)/.benched ## what the audit tells apart and catches (needs the research data)
	$(BIN)/python benchmarks/audit.py

bench-statistics: setup ## intervals of a large study: time and memory
	$(BIN)/python benchmarks/resampling.py --threads 1

bench-report: setup ## the study report at full size: written, opened, searched (needs Chromium)
	$(BIN)/python benchmarks/report.py

$(VENV)/.benched: $(BIN)/uv pyproject.toml uv.lock
	$(BIN)/uv sync --frozen --inexact --quiet --group bench
	@touch $@ $(VENV)/.synced

soak: setup ## the storms in full: many kills, many draws
	LMDISSECT_KILLED_RUNS=200 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

wheel: $(BIN)/uv ## build the wheel and run it from a clean environment
	rm -rf dist && $(BIN)/uv build --quiet --wheel

clean: ## remove what the targets made
	rm -rf $(VENV) dist runs
