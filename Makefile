# quickstart and test are all a newcomer needs; each works with nothing but Python 3.11 and make, and offline once installed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test test-all check bench docs clean

quickstart: $(VENV)/installed  ## train, serve and report on the first model (four to six minutes)
	$(BIN)/caslon run recipes/quickstart.toml

test: $(VENV)/installed-dev  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/installed-dev  ## every test, the slow ones too; the page of promises then says how each ended
	$(BIN)/python -m pytest --junit-xml=build/tests.xml; code=$$?; \
	$(BIN)/python docs/promises.py build/tests.xml && $(BIN)/python docs/generate.py && exit $$code

check: $(VENV)/installed-dev  ## format, lint, types, import directions, documentation that must agree with the tree
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

bench: $(VENV)/installed-dev  ## the published numbers of speed that need no model or text of yours; the other scripts say what they need
	for script in $$(grep -L 'add_argument("[a-z]' benchmarks/*.py); do $(BIN)/python $$script || exit 1; done

docs: $(VENV)/installed-dev  ## the documentation as a website in site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

KERNELS := $(wildcard caslon/engine/native/*.cpp caslon/engine/native/*.h)

$(VENV)/installed: pyproject.toml constraints.txt $(KERNELS) | $(VENV)/bin/python
	$(PIP) --editable ".[all]"
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt $(KERNELS) | $(VENV)/bin/python
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/installed

clean:  ## remove everything that the other targets made, runs excepted
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
