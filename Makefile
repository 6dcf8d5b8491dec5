# What people run and what CI runs: the same targets. Each makes its own .venv.
PYTHON ?= python3.11
VENV := .venv
BENCH_VENV := .venv-bench
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -q

.PHONY: help demo test lint check-types imports unit gate docs format bench-env wheel clean

help:  ## shows this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install -c constraints.txt -e '.[all]' --group dev
	@touch $@

demo: $(VENV)/.installed  ## the whole product on real data, in minutes
	$(VENV)/bin/edgenas demo

test: lint check-types imports unit gate  ## everything that CI checks

lint: $(VENV)/.installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

check-types: $(VENV)/.installed
	$(VENV)/bin/mypy

imports: $(VENV)/.installed
	$(VENV)/bin/lint-imports

unit: $(VENV)/.installed
	$(VENV)/bin/pytest -q

gate: $(VENV)/.installed  ## our own gate on our own models: predicted from ci/local.json, no device
	$(VENV)/bin/python ci/models.py build/ci
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" EDGENAS_RESULTS=build/gate-results ci/gate.sh build/ci/*.onnx

docs: $(VENV)/.installed  ## builds the documentation into build/site
	$(PIP) install -c constraints.txt --group docs
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/mkdocs build --strict --quiet --site-dir build/site

format: $(VENV)/.installed  ## formats the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench-env: $(BENCH_VENV)/.installed  ## the peers that benchmarks run beside ours
$(BENCH_VENV)/.installed: pyproject.toml constraints.txt bench/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt -e '.[all]' -r bench/requirements.txt
	@touch $@

wheel: $(VENV)/.installed  ## builds dist/*.whl
	$(VENV)/bin/python -m build --wheel

clean:  ## removes environments and caches
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache build dist
