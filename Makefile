# make train   set up if needed, then train the default preset; ARGS="..." is passed on, e.g. make train ARGS="--help"
# make test    the default suite        make test-all   the slow tests too
# make test-metaworld   the tests of Meta-World, in an environment of its own, .venv-metaworld
# make lint    ruff and mypy            make format     let ruff rewrite the layout
# make docs    the site, in docs/_build/html (warnings are errors)
# make clean   remove .venv, .venv-metaworld and everything that was built; runs/ stays
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORLD := .venv-metaworld
ARGS ?=

.PHONY: train test test-all test-metaworld lint format docs clean install

train: $(INSTALLED)
	$(BIN)/python -m metarl.train $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not browser" $(ARGS)

test-metaworld: $(WORLD)/.installed
	$(WORLD)/bin/python -m pytest tests/envs/test_meta_world.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html $(ARGS)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "metarl needs Python 3.11 or newer and '$(PYTHON)' is not one; name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,docs]'
	@touch $@

# Meta-World pins an older MuJoCo than constraints.txt, so only what both need is pinned here.
$(WORLD)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(WORLD)
	grep -E '^(torch|gymnasium|pytest)==' constraints.txt > $(WORLD)/constraints.txt
	$(WORLD)/bin/python -m pip install --quiet -c $(WORLD)/constraints.txt -e '.[metaworld]' pytest
	@touch $@

clean:
	rm -rf $(VENV) $(WORLD) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
