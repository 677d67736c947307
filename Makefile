# make demo   install, then the whole path: compose, train, search, tag, pictures
# make test   install, then the tests
# make results  train on real recordings, judge, and write docs/results.md
# make check  lint, types and tests;  make clean removes what was made here

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Reinstall when, and only when, what is to be installed has changed.
STAMP := $(VENV)/.installed

# Two processes on two cores: a second thread in each would only make them wait for one another.
PYTEST = OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: install demo test fuzz lint types check results wheel clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xmodal needs Python 3.11 or later, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

demo: install
	$(BIN)/xmodal demo

test: install
	$(PYTEST)

# 5,000 broken audio files through a server; the tests send 400 of them.
fuzz: install
	XMODAL_FUZZ=5000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s --timeout 900 tests/serve/test_fuzz_audio.py -k thousands

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

# Train, judge, and write the figures of docs/results.md; what is finished is kept in runs/results.
AUDIO ?= ../shared/audio
DEMO ?= demo
LOSSES ?=

results: install
	$(BIN)/python benchmarks/results.py --audio $(AUDIO) --demo $(DEMO) $(if $(LOSSES),--losses $(LOSSES))

wheel: install
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
