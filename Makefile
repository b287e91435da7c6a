# Dockyard. A bare `make` prints this help.
PY := .venv/bin/python

help: ## this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Debian packages and the Python environment (root, Debian 12)
	@scripts/setup

demo: ## set up, then run the main job end to end and print what happens
	@scripts/setup
	@$(PY) -m dockyard.cli.demo

test: ## set up, then all tests (root: the kernel tests use real namespaces)
	@scripts/test

check: ## lint, types, import contracts
	@$(PY) -m ruff check src tests bench
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache

fix: ## format and repair what can be repaired
	@$(PY) -m ruff check --fix src tests bench
	@$(PY) -m ruff format src tests bench

examples: ## build, start and try the example applications on a running engine (DOCKER_HOST)
	@examples/try

docs: ## generated pages: API coverage, error catalogue
	@$(PY) scripts/gendocs.py

.PHONY: help setup demo test check fix examples docs
