# Everything a newcomer or CI needs, on a machine that has only git, make and CPython 3.11 with pip.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install system-packages demo up test test-slow lint types bench soak lock images compose-up compose-down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

install: $(STAMP) ## Create .venv with the pinned dependencies

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What some tests drive: a browser, and a Prometheus to check rules and dashboards with.
SYSTEM_PACKAGES := chromium chromium-driver prometheus

system-packages: ## Install Debian's browser and Prometheus where they are missing; tests need them
	@missing=$$(for name in $(SYSTEM_PACKAGES); do \
	  dpkg-query --show --showformat='$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || printf ' %s' $$name; \
	done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "not installed:$$missing (that takes apt-get and root); tests that need them are skipped"; exit 0; fi; \
	echo "installing$$missing"; \
	{ apt-get update --quiet --quiet && DEBIAN_FRONTEND=noninteractive \
	  apt-get install --quiet --quiet --yes --no-install-recommends $$missing >/dev/null; } || \
	{ echo "cannot install$$missing; to test without: make test SYSTEM_PACKAGES="; exit 1; }

demo: $(STAMP) ## Start everything, run the example questions, print a table, stop
	@$(BIN)/dspy-jobs demo

up: $(STAMP) ## Keep the whole stack running in this terminal, autoscaled; Ctrl-C stops it
	@$(BIN)/dspy-jobs up --autoscale

test: $(STAMP) system-packages ## Run the tests, fast ones first
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP) system-packages ## Run the tests that take long: soaks, speed, browser, Prometheus, what the images install
	$(BIN)/python -m pytest -m slow

lint: $(STAMP) ## Check style and import boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

bench: $(STAMP) ## Measure against bare DSPy and plain Celery, side by side
	$(BIN)/python -m benchmarks

soak: $(STAMP) ## Ten minutes of killed workers, Redis restarts and provider faults; count what was lost
	$(BIN)/python -m tests.system.soak

PIN := uv pip compile pyproject.toml --generate-hashes --python-version 3.11 --no-annotate --no-header --quiet

lock: ## Pin every dependency with hashes again, for development and for each image (needs uv)
	$(PIN) --all-extras -o requirements.txt
	$(PIN) --extra api --extra tracing --extra sentry -c requirements.txt -o requirements-api.txt
	$(PIN) --extra worker --extra autoscaler --extra tracing --extra sentry -c requirements.txt -o requirements-worker.txt

images: ## Build the container images (needs docker)
	docker compose --profile sandbox build

compose-up: ## Start the whole service in containers, and submit one job (needs docker)
	@./quickstart.sh

compose-down: ## Stop the containers; what is in the volumes stays
	docker compose --profile sandbox down

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
