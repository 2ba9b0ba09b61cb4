# The front door. Everything is installed into .venv; CI calls the same targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv is quicker; pip knows mirrors that are set up for pip alone.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/pip install --quiet $(1)
# Runs a command that takes long, and shows for how long.
STEP = @$(PYTHON) demo/step.py

# Python keeps what it compiles: with this set, each of the many processes of Airflow would compile all its modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-chaos test-cluster test-ui screenshots dashboard test-matrix package sbom licences release-check fuzz lint docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Run the example DAGs in a real Airflow (KEEP=1 leaves it up)
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

test: $(VENV)/.dev ## Run the tests that need no Airflow of their own: about 8 minutes
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder -m "not alone" --durations 15
	$(BIN)/python -m pytest -m alone

test-system: $(VENV)/.dev ## Run gates in a real Airflow: all ways to wait, killed and busy processes, teams, the demonstration, the tutorial
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not alone" --durations 15 tests/system
	$(BIN)/python -m pytest -m alone --durations 15 tests/system

test-chaos: $(VENV)/.dev ## Kill, freeze and clear tasks that start evaluations (UPDATE=1 writes docs/reliability.md's table)
	$(BIN)/python -m pytest tests/chaos $(if $(UPDATE),--update-docs)

test-cluster: $(VENV)/.cluster ## Kill and restart parts of an Airflow on Celery while tasks wait (SHORT=1 for fewer; UPDATE=1 writes the tables in docs/reliability.md)
	$(BIN)/python -m pytest tests/cluster $(if $(SHORT),--short) $(if $(UPDATE),--update-docs)

test-ui: $(VENV)/.ui ## Run the tests of Airflow's web pages, in a real browser
	$(BIN)/python -m pytest tests/ui

screenshots: $(VENV)/.ui ## Run those tests, and keep their screenshots in docs/images
	$(BIN)/python -m pytest tests/ui --screenshots docs/images

dashboard: $(VENV)/.ui ## Draw docs/grafana.json over metrics of real waits, into docs/images: about 22 minutes (AGAIN=1 over the same metrics; needs npm and Prometheus)
	$(BIN)/python -m tests.dashboard $(if $(AGAIN),--again)

test-matrix: $(VENV)/.made ## Run the tests on every supported Airflow (UPDATE=1 writes docs/tested-with.md's table)
	$(BIN)/python -m tests.matrix $(if $(UPDATE),--update) $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

package: $(VENV)/.dev ## Build sdist and wheel into dist, and check both
	rm -rf dist
	$(BIN)/python -m build --installer uv
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

sbom: package ## Write what is installed with the wheel into build/sbom.cdx.json (CycloneDX)
	$(BIN)/python -m tests.release sbom

licences: package ## Check the licences of what is installed with the wheel
	$(BIN)/python -m tests.release licences

release-check: $(VENV)/.dev ## Check what of RELEASING.md a machine can check (QUICK=1 leaves out what takes hours)
	$(BIN)/python -m tests.release check $(if $(QUICK),--quick)

fuzz: $(VENV)/.dev ## Feed the parser and both transports with damaged responses for SECONDS (default 180)
	$(BIN)/python -m tests.fuzz $(SECONDS)

lint: $(VENV)/.dev ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/codespell
	$(BIN)/zizmor --quiet --offline .github

docs: $(VENV)/.dev ## Build the documentation into build/docs; a warning or a dead link is an error
	AIRFLOW_HOME=$(CURDIR)/build/airflow $(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet \
		docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html"

bench: $(VENV)/.bench ## Measure what a wait costs beside the peers (SHORT=1 only sees that all runs, ONLY=section, UPDATE=1 keeps its results)
	@$(VENV)/bench/bin/python -m benchmarks $(if $(SHORT),--short) $(addprefix --only ,$(ONLY)) $(if $(UPDATE),--update)

clean: ## Remove everything that was installed and made
	rm -rf $(VENV) .bench .demo build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, but $(PYTHON) is older: make PYTHON=/path/to/python3.11 ...")'
	$(STEP) "Only the first time: making $(VENV), about 10 s" \
		"$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade pip uv"
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.made
	$(STEP) "Only the first time: installing Airflow and this provider into $(VENV), 15 s to 2 min" \
		"$(call INSTALL,--editable . --group demo)"
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	$(STEP) "Only the first time: installing Airflow, this provider and its test tools into $(VENV), 1 to 3 min" \
		"$(call INSTALL,--editable . --group dev)"
	@touch $@ $(VENV)/.demo

# An environment of its own, so that the peers and what they need are in no other.
$(VENV)/.bench: pyproject.toml $(VENV)/.made
	@echo "Installing Airflow, this provider and the peers it is measured beside into $(VENV)/bench ..."
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)/bench
	@$(BIN)/uv pip install --quiet --python $(VENV)/bench/bin/python --editable . --group bench
	@touch $@

$(VENV)/.ui: pyproject.toml $(VENV)/.dev
	@$(call INSTALL,--group ui)
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		echo "Installing chromium ..." && apt-get update -qq && apt-get install -y -qq chromium; } || \
		{ echo "A browser is needed: install Debian's package chromium, or another build of it as 'chromium' on the PATH"; exit 1; }
	@touch $@

# Debian may start a service with the package. It is stopped: the test starts a Redis of its own.
$(VENV)/.cluster: pyproject.toml $(VENV)/.dev
	@$(call INSTALL,--group cluster)
	@command -v redis-server >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		echo "Installing Redis ..." && apt-get update -qq && apt-get install -y -qq redis-server && \
		{ service redis-server stop >/dev/null 2>&1 || true; }; } || \
		{ echo "Redis is needed: install Debian's package redis-server, or another one as 'redis-server' on the PATH"; exit 1; }
	@touch $@
