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

docs: ## generated pages: API coverage, error catalogue, command line
	@$(PY) scripts/gendocs.py

conformance: ## suites of others on private engines (minutes; needs PyPI the first time), then the scoreboard
	@$(PY) -m dockyard.testing.conformance --engine dockyard --engine dockerd
	@$(PY) scripts/scoreboard.py

scoreboard: ## docs/scoreboard.md from the kept results
	@$(PY) scripts/scoreboard.py

fuzz: ## the API and the parsers fuzzed for longer, from another seed each time
	@DOCKYARD_FUZZ_ROUNDS=100 DOCKYARD_FUZZ_SEED=$$(date +%s) $(PY) -m pytest -q -s --timeout=3600 tests/conformance/test_fuzz.py
	@for target in layers documents dockerfile reference dns; do \
	    $(dir $(PY))uv run --no-sync --with 'atheris==3.0.0' python tests/fuzz/parsers.py $$target -max_total_time=120 || exit 1; done

crash: ## kill -9 at random under load for ten minutes, from another seed each time
	@DOCKYARD_CRASH_SECONDS=600 DOCKYARD_CRASH_SEED=$$(date +%s) $(PY) -m pytest -q -s --timeout=3600 tests/kernel/test_engine_crash_load.py

bench-faults: ## every fault, pairs, cascades, 200 healthy hosts on both engines, then docs/doctor-scores.md (two hours; goes on when stopped)
	@for engine in dockerd dockyard; do \
	    $(PY) -m bench.faults --engine $$engine --pairs --healthy 200 --speed 100 --out bench/faults/$$engine.json; done
	@$(PY) -m bench.faults --page bench/faults/dockerd.json bench/faults/dockyard.json > docs/doctor-scores.md
	@$(PY) -m bench.faults --catalogue > docs/doctor-catalogue.md

.PHONY: bench-faults help setup demo test check fix examples docs conformance scoreboard fuzz crash
