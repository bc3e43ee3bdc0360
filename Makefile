# make train   set up if needed, then train the default preset; ARGS="..." is passed on, e.g. make train ARGS="--help"
# make test    the default suite        make test-all   the slow tests too
# make lint    ruff and mypy            make format     let ruff rewrite the layout
# make docs    the site, in docs/_build/html (warnings are errors)
# make clean   remove .venv and everything that was built; runs/ stays
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

.PHONY: train test test-all lint format docs clean install

train: $(INSTALLED)
	$(BIN)/python -m metarl.train $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -m "not gpu and not browser" $(ARGS)

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

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
