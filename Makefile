# Everything a person or CI runs. `make help` lists the targets.
# PYTHON names the interpreter (3.11 or newer) that the environment is made with.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check unit newest bench compare faults upstream docs lock clean
help:  ## List the targets.
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml requirements.lock
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer with venv found." \
		"On Debian and Ubuntu: apt-get install python3 python3-venv." >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(VENV)/.installed  ## Lab up, build, measure, report, lab down.
	@$(BIN)/kit demo

test: $(VENV)/.installed check unit newest  ## Run every check and every test.

check: $(VENV)/.installed  ## Lint, format and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

unit: $(VENV)/.installed  ## Run the tests; TESTS="..." narrows them.
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(TESTS)

newest:  ## Run what needs no lab under Python 3.13 as well, where that is installed.
	@if python3.13 -c 'import ensurepip' 2>/dev/null; \
	then $(MAKE) unit VENV=.venv-3.13 PYTHON=python3.13 TESTS='-m "not lab"'; \
	else echo "Python 3.13 is not installed here: its tests were not run."; fi

bench: $(VENV)/.installed  ## Builds of 3 to 50 hosts (docs/bench.md), all pairs of 3 to 50 nodes, the kit beside a plain ping, a million samples charted, thousands of parameter files; an hour.
	KIT_FUZZ=2000 $(BIN)/python -m pytest --timeout 1800 tests/test_params_fuzz.py tests/test_probes.py
	$(BIN)/python tests/bench/bench_charts.py --page docs/bench_charts.md
	$(BIN)/python tests/bench/bench_scale.py --page docs/bench.md
	$(BIN)/python tests/bench/bench_pairs.py --page docs/bench_pairs.md
	$(BIN)/python tests/bench/bench_fidelity.py --page docs/bench_fidelity.md

compare: $(VENV)/.installed  ## Every plugin compared in the lab, a quarter of an hour (writes docs/comparison.md).
	$(BIN)/python tests/bench/bench_compare.py --page docs/comparison.md

faults: $(VENV)/.installed  ## The tests that are too long for `make test`, then the network's faults (writes docs/diagnose_faults.md) and the fault matrix (docs/faults.md).
	$(BIN)/python -m pytest -m thorough tests/e2e tests/lab tests/test_probes_real.py
	$(BIN)/python -u tests/faults/diagnose.py --write docs/diagnose_faults.md
	$(BIN)/python -u tests/faults/matrix.py --write docs/faults.md

upstream: $(VENV)/.installed  ## Upstream's manifests on every version of the lab's API (writes docs/manifests.md).
	$(BIN)/python tests/lab/upstream.py --write docs/manifests.md

docs: $(VENV)/.installed  ## Write docs/plugins.md and the README's table of plugins from the catalogue, docs/records.md from the tables of samples.
	$(BIN)/python docs/plugins.py
	$(BIN)/python docs/records.py

lock:  ## Pin what pyproject.toml allows today; PYTHON must be the oldest supported one.
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check '.[lab,test,dev]'
	( echo '# Every package of the environment, pinned by `make lock` with the oldest supported Python.'; \
	  echo '# pyproject.toml says what is wanted.'; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude cluster-network-kit ) > requirements.lock
	rm -rf $(VENV)-lock build *.egg-info

clean:  ## Remove the environment and caches; runs/ and the lab's state stay.
	rm -rf $(VENV) .venv-3.13 .mypy_cache .pytest_cache .ruff_cache
