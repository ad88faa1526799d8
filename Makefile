# SPDX-License-Identifier: Apache-2.0
# What people do here. `make` alone lists it. Every target sets up .venv first, once (.ci/setup).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where nothing compiled is kept, every process compiles the program again: a third of its start (measured).
unexport PYTHONDONTWRITEBYTECODE
export PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=
JOBS ?= 3
SEEDS ?= 10000
YEARS ?= 1000
MESSAGE ?=

.PHONY: help setup demo lint rules test test-long simulate mutants bench release lock migration texts clean

help:
	@echo 'make demo                    three agencies on this machine play a referral; ARGS="--exit" ends after it'
	@echo 'make test                    every check and every test, on SQLite and PostgreSQL'
	@echo 'make lint                    the checks alone: ruff, mypy, import-linter'
	@echo 'make test-long               the pages in all six languages'
	@echo 'make simulate SEEDS=10000    many nodes over a bad network, one run for each seed; then YEARS=1000 node-years'
	@echo 'make mutants                 deliberate faults, each of which the simulator must catch'
	@echo 'make bench                   how fast, how large; compared with the last time'
	@echo 'make release                 wheel, SBOM and checksums into dist/, the same to the last byte each time'
	@echo 'make migration MESSAGE="…"   a new migration from the difference to node/storage/tables.py'
	@echo 'make texts                   new texts into the catalogues of node/locale, to be translated there'
	@echo 'make lock                    newest allowed packages into requirements.lock (needs uv)'
	@echo 'make clean                   remove .venv and what runs left behind'

setup:
	@.ci/setup

demo: setup
	@.venv/bin/staffetta demo $(ARGS)

lint: rules
	$(PY) -m mypy

rules: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports

test: rules
	@.ci/system-packages
	.ci/test -n $(JOBS) --dist worksteal $(ARGS)

test-long: setup
	@.ci/system-packages
	STAFFETTA_LONG=1 $(PY) -m pytest -n $(JOBS) tests/browser

simulate: setup
	@$(PY) -m tests.simulator --seeds $(SEEDS) $(ARGS)
	@$(PY) -m tests.years --years $(YEARS)

mutants: setup
	@$(PY) -m tests.mutants $(ARGS)

bench: setup
	@$(PY) -m bench $(ARGS)

release: setup
	@.ci/release dist

# A scratch database at the last migration is what the tables are compared with.
migration: setup
	@test -n "$(MESSAGE)" || { echo 'Say what it does: make migration MESSAGE="add a review date"' >&2; exit 1; }
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	number=$$(printf '%04d' $$(($$(find migrations/versions -name '[0-9]*.py' | wc -l) + 1))); \
	$(PY) -m alembic -x url="sqlite:///$$scratch/db" upgrade head; \
	$(PY) -m alembic -x url="sqlite:///$$scratch/db" revision --autogenerate --rev-id "$$number" -m "$(MESSAGE)"; \
	$(PY) -m ruff format migrations

# Two locks of the same versions: everything, and what a server needs (with the builder of the wheel). The first lines of
# each say what it is. No address of an index gets into either. Extras stay in it: pip would otherwise look for the newest
# release of `name[extra]`, find one without a hash, and stop.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate --no-strip-extras --quiet
lock:
	@$(COMPILE) --all-extras --upgrade --output-file requirements.lock.new
	@{ sed -n '1,2p' requirements.lock; cat requirements.lock.new; } >requirements.lock.whole
	@mv requirements.lock.whole requirements.lock
	@grep -E '^[a-z0-9.-]+(\[[a-z,]+\])?==' requirements.lock | sed -E 's/\[[a-z,]+\]//; s/ \\$$//' >requirements.lock.new
	@echo hatchling | $(COMPILE) - --extra postgres --extra pdf --extra notify --constraint requirements.lock.new --output-file deploy/lock.new
	@{ sed -n '1,2p' deploy/requirements.lock; cat deploy/lock.new; } >deploy/lock.whole
	@mv deploy/lock.whole deploy/requirements.lock
	@rm requirements.lock.new deploy/lock.new

# English is in the code; each catalogue gets what is new and loses what is gone. A text without a translation fails a test.
texts: setup
	@pot=$$(mktemp); trap 'rm -f "$$pot"' EXIT; \
	.venv/bin/pybabel -q extract -F node/locale/babel.cfg -k N_ -k say -k LocalError:2 -k _Wrong:1 -k Problem:3 -k problem:2 \
		--no-location --sort-output --project Staffetta --omit-header -o "$$pot" .; \
	for language in it fr es ro ar; do \
		.venv/bin/pybabel -q update -N --ignore-obsolete --ignore-pot-creation-date --no-wrap -l $$language -i "$$pot" -o node/locale/$$language.po; \
		sed -i -E '/^"(Project-Id|Report-Msgid|POT-Creation|PO-Revision|Last-Tr|Language-Team|Generated-By)/d' node/locale/$$language.po; \
	done

clean:
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
