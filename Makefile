# Everything a fresh machine needs is Python 3.11+ and this file.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed$(if $(CPU),-cpu)

.PHONY: help search test test-long test-all test-crash test-team check docs env lock clean

help:                  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

search: env            ## run the bundled study end to end
	$(BIN)/python scripts/search.py --space digits_w3a3 $(ARGS)

test: env              ## the default tests
	$(BIN)/python -m pytest -n logical --dist worksteal -m "not slow and not long" $(ARGS)

test-long: env         ## those of seconds: signals, kills, whole comparisons
	$(BIN)/python -m pytest -n logical --dist worksteal -m "long and not slow" $(ARGS)

test-all: env          ## also the slow ones
	$(BIN)/python -m pytest $(ARGS)

test-crash: env        ## faults for real, 100 SIGKILLs of the driver; writes studies/fault_table.md
	$(BIN)/python -m pytest tests/crash --kills 100 --fault-table studies/fault_table.md $(ARGS)

test-team: env         ## MLflow as teams run it: PostgreSQL, S3, two drivers (needs Debian's PostgreSQL)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .venv/team --group team
	PYTHONPATH=$(CURDIR)/.venv/team $(BIN)/python -m pytest tests/crash/test_team_mlflow.py $(ARGS)

check: env             ## linter and formatter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: env              ## write the generated pages of docs/ again
	$(BIN)/python -m synq_tune.cli.pages

env: $(STAMP)          ## prepare .venv; CPU=1 leaves the CUDA packages out

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f"`Python >= 3.11` must hold, but got {v[0]}.{v[1]}. Use make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	.ci/install $(if $(CPU),cpu)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	rm -f .venv/.installed*
	touch $@

lock:                  ## pin what pyproject.toml allows today
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --output-file requirements.lock

clean:                 ## remove .venv and the caches of the tests
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
