# The few commands a person needs; everything else is `molmo2` and `dagster` after `source activate.sh`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
PORT ?= 3000
VENV := .venv
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-12)
ENV := source ./activate.sh

.PHONY: help venv peers demo learn test lint ui clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@command -v '$(PYTHON)' >/dev/null || { echo '$(PYTHON) is not here: install Python 3.11 or newer, or set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@# Words that any Python understands, or an old one would answer with a syntax error.
	@'$(PYTHON)' -c 'import sys; v = sys.version_info; sys.exit(0 if v[:2] >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is %d.%d: set PYTHON=/path/to/python3.11" % (v[0], v[1]))'
	@test -x $(VENV)/bin/python || '$(PYTHON)' -m venv $(VENV)
	@# torch first and pinned: a range would take a build with CUDA libraries of several gigabytes.
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.installed-*; touch $@

venv: $(STAMP) ## the environment: .venv with the pinned packages

peers: ## .venv-peers with the pinned libraries that some benchmarks measure beside ours
	@test -x .venv-peers/bin/python || '$(PYTHON)' -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt

demo: $(STAMP) ## the whole graph at demo size, then a summary
	@$(ENV) && molmo2 demo

learn: $(STAMP) ## the demo trained longer: the figures of the scoreboard (about a quarter of an hour on two cores)
	@export MOLMO2_PROFILE=learn && $(ENV) && molmo2 demo

test: $(STAMP) ## the tests
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup -m 'not slow'

lint: $(STAMP) ## ruff, import contracts, types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports --no-cache && $(VENV)/bin/mypy

ui: $(STAMP) ## the Dagster UI on http://127.0.0.1:3000 (PORT=… for another)
	@$(VENV)/bin/python -c 'import socket, sys; sys.exit("Port $(PORT) is in use, perhaps by another UI: close that one, or choose another port: make ui PORT=%d" % ($(PORT) + 1) if socket.socket().connect_ex(("127.0.0.1", $(PORT))) == 0 else 0)'
	@$(ENV) && dagster dev --host 127.0.0.1 --port $(PORT)

clean: ## remove what the demo made (.molmo2), not the environment
	rm -rf .molmo2
