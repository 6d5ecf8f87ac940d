# The commands of the house. `make setup` is implied by the others.
#
#   make demo    the whole system on this machine, on real servers, under 60 s
#   make test    every test
#   make check   format, lint, import contracts, types
#   make bench   the figures of docs/performance.md
#   make docs    the documents as a site, in site/
#   make dist    the wheel and the sdist, in dist/
#   make console the page at /ui/ from its sources in console/ (needs Node 20 and the network)
#   make lock    resolve the dependencies anew (needs the network)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
# Half as many again as there are cores, for tests wait as much as they work; no more than the
# connections of one PostgreSQL are enough for.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(12, (3 * os.cpu_count() + 1) // 2))')

.PHONY: setup demo test check bench docs dist console lock format clean

setup: $(STAMP)

$(STAMP): requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "svsync needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup
	$(BIN)/svsync demo

# Pytest keeps the tests as it rewrites them, or else each worker does that anew each time.
test: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m bench

docs: setup
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs site

dist: setup
	$(BIN)/hatchling build

# What it makes is committed: Node is needed to change the console, and for nothing else.
console:
	cd console && npm ci --no-progress && npm run --silent check && npm run --silent build

# Of one resolution: what runs and what builds have the versions that were tested.
lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --all-extras --group build --group test --group clouds --group check --group docs pyproject.toml -o requirements/lock.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --constraint requirements/lock.txt --extra aws --extra azure --extra gcp --extra pkcs11 --extra otel \
	  pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --constraint requirements/lock.txt --group build -o requirements/build.txt

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist
