# Everything a laptop needs: Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
PROFILE ?= dev
# Tests with real processes that run side by side; each may start all of them.
STACKS ?= 2
REASON ?=
MINUTES ?= 60
SEED ?= 1

.PHONY: install run test matrix proof chaos bench status restart halt resume clean

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("perps-bot needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name one with make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@$(BIN)/perps-bot run --profile $(PROFILE)

status: install
	@$(BIN)/perps-bot status

restart: install
	@$(BIN)/perps-bot restart $(SERVICE)

halt: install
	@$(BIN)/perps-bot halt --reason "$(REASON)"

resume: install
	@$(BIN)/perps-bot resume --reason "$(REASON)"

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist worksteal -m "not integration and not extras"
	$(BIN)/pytest -n $(STACKS) --dist loadgroup --no-loadscope-reorder -m "integration and not extras"

# Every fault of the venue and of our own processes against a market and a limit order, as a table; about 3 minutes.
# ROWS='"kill -9" 429' runs those whose names hold one of the words.
matrix: install
	@$(BIN)/python -m tests.integration.matrix $(ROWS)

# Every planted bug is caught by the simulation's checks within its seeds; some minutes. BUGS='"fill counted twice" lease'
# tries those whose names hold one of the words.
proof: install
	@$(BIN)/python -m tests.simulation.proof $(BUGS)

# An hour of kill -9, pauses, partitions and faults of the venue from a seed, on real processes under load; then the books.
chaos: install
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED)

# Restart times over the length of the ledger, and the speed of the backtest over recorded data; about 15 minutes and
# 3 GB of temporary disk.
bench: install
	@$(BIN)/python -m bench.backtest
	@$(BIN)/python -m bench.restart

clean:
	rm -rf .venv var dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
