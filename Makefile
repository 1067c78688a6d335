# Two commands matter on a fresh clone: `make demo` and `make test`. Each does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v && break; done || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WARM := $(VENV)/.warm
PEERS := $(VENV)/.peers
KAFKA_TESTS := tests/kafka
PYTEST_ARGS ?=
# KEYWATCH_SEED=n chooses what random tests do; tests/seeds.py says which seeds are kept.
SEEDED := $(if $(KEYWATCH_SEED),--hypothesis-seed=$(KEYWATCH_SEED))
export KEYWATCH_SEED

.PHONY: help install test test-cluster test-faults fuzz bench-rejects sbom audit coverage demo bench bench-scale profile evaluate lint format typecheck imports check clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

install: $(WARM) ## set up .venv with everything (Python 3.11 to 3.13), compile the detectors

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The detectors are compiled into numba's cache: a minute of one core after a change, two seconds otherwise.
$(WARM): $(READY) $(wildcard detectors/*.py pipeline/*.py)
	$(BIN)/keywatch warm-up
	@touch $@

# What the bench compares with. A machine that cannot have it all (no wheel) measures what it has.
$(PEERS): $(WARM)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]' \
		|| echo "not all peers can be installed here: the bench says which are missing"
	@touch $@

test: $(WARM) ## run the tests (all but those on a real Kafka cluster)
	$(BIN)/python -m pytest -n 3 --dist loadfile --ignore=$(KAFKA_TESTS) $(SEEDED) $(PYTEST_ARGS)

coverage: $(READY) ## which lines the tests reach (detectors uncompiled, so slow)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m coverage run -m pytest --ignore=$(KAFKA_TESTS) $(PYTEST_ARGS) || true
	$(BIN)/python -m coverage report

test-cluster: $(WARM) ## run the tests on Apache Kafka: one node, a secured one, three (needs Java and Maven)
	$(BIN)/python -m pytest $(KAFKA_TESTS) $(PYTEST_ARGS)

RECOVERIES := build/recoveries.jsonl
FAULTS := operators.py operating.py outside.py whole.py security.py upgrade.py partition_change.py lifecycle.py responder.py
LONG := KEYWATCH_LONG=1 KEYWATCH_PATIENCE=5 KEYWATCH_AWAY_S=60 KEYWATCH_BACKLOG=300000 KEYWATCH_IDS=2000000 KEYWATCH_RECOVERIES=$(RECOVERIES)
test-faults: $(WARM) ## the long way: simulation, 100 kills, ClickHouse away for a minute, full disks, every fault at once, a backlog; says how long each took to be over
	KEYWATCH_SIMULATE_S=300 KEYWATCH_EXAMPLES=1000 $(BIN)/python -m pytest -n 2 --timeout=1800 tests/simulation $(SEEDED) $(PYTEST_ARGS)
	rm -f $(RECOVERIES)
	KEYWATCH_KILLS=100 $(LONG) $(BIN)/python -m pytest --timeout=1800 $(KAFKA_TESTS)/test_faults.py $(KAFKA_TESTS)/test_kills.py $(PYTEST_ARGS)
	KEYWATCH_KILLS=100 $(LONG) $(BIN)/python -m pytest --timeout=7200 $(addprefix $(KAFKA_TESTS)/test_,$(FAULTS)) $(PYTEST_ARGS)
	$(BIN)/python -m tests.kafka.recovery $(RECOVERIES)

SECONDS ?= 60
SEED ?= 1
fuzz: $(WARM) ## hostile inputs at every boundary for SECONDS=60 with SEED=1; failing ones stay as cases
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) --seed $(SEED) $(FUZZ_ARGS)

bench-rejects: $(WARM) ## what rejected records cost the good ones, per kind of reject
	$(BIN)/python -m tests.bench.rejects $(BENCH_ARGS)

sbom: $(READY) ## build/sbom.cdx.json: what we depend on, with versions and licences (CycloneDX 1.6)
	@mkdir -p build
	$(BIN)/python -m tests.dependencies.sbom > build/sbom.cdx.json

audit: $(READY) ## known vulnerabilities of what is pinned, asked of pip's index; says so where that can't tell
	$(BIN)/python -m tests.dependencies.audit

demo: $(WARM) ## the whole product, small, on this machine
	$(BIN)/keywatch demo $(DEMO_ARGS)

bench: $(PEERS) ## the worker beside its peers on Apache Kafka (a quarter of an hour; BENCH_ARGS="--json --nodes 3")
	$(BIN)/python -m tests.kafka.run_bench $(BENCH_ARGS)

profile: $(PEERS) ## where the running worker's time goes, by thread
	$(BIN)/python -m tests.kafka.run_bench --profile $(BENCH_ARGS)

bench-scale: $(WARM) ## a million keys: cost per event, checkpoints, recovery, memory, distinct ids (half an hour, 6 GB)
	for each in cost_per_event checkpoints recovery recovery_kafka distinct_ids hot_key clickhouse_bytes; do \
		$(BIN)/python -m tests.bench.$$each || exit 1; done
	$(BIN)/python -m tests.evaluation.outage_partitions

evaluate: $(WARM) ## how good the detection is: NAB, and keybench with its page (many minutes; needs KEYWATCH_DATA)
	$(BIN)/keywatch evaluate nab --out evaluation/nab
	$(BIN)/keywatch evaluate keybench --chunks evaluation/pieces --json evaluation/keybench.json \
		--html evaluation/keybench.html $(EVALUATE_ARGS)

lint: $(READY) ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## put into style what can be
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(READY) ## strict types, code and tests
	$(BIN)/mypy

imports: $(READY) ## imports point one way (.importlinter)
	$(BIN)/lint-imports

check: lint typecheck imports test ## all of it but the cluster

clean: ## remove what these commands made
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist .coverage
