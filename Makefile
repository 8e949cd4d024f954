# make quickstart    set up .venv, train, evaluate and export a small model
# make test          set up .venv, run all tests at reduced counts
# make test-full     the same at full counts; hours
# make lint          format, lint and types, without changing a file
#
# PYTHON is the interpreter that .venv is made from, ARGS are pytest's:
#   make test PYTHON=python3.12 ARGS="tests/data -x"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check \
  --quiet --constraint=constraints.txt
# A file of tests stays in one process: its fixtures are costly. Files go in
# their order, since by default those of few tests come last, and one of them
# trains for minutes while the other processes have nothing left. A process
# that crashes ends the run: pytest-xdist can wait forever for what it had.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 \
  --dist=loadfile --no-loadscope-reorder --max-worker-restart=0
QUICKSTART := $(BIN)/python main.py --config=configs/quickstart.py \
  --workdir=runs/quickstart
ARGS ?=

.PHONY: quickstart test test-full lint
.DELETE_ON_ERROR:

quickstart: $(VENV)/.train
	$(QUICKSTART)
	$(QUICKSTART) --mode=eval
	$(QUICKSTART) --mode=export --output=runs/quickstart/hub

test: $(VENV)/.test
	$(PYTEST) $(ARGS)

test-full: $(VENV)/.test
	$(PYTEST) --full $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath=$(BIN)/python

# A stamp is newer than what it was made from: a second call installs nothing.
$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  "Python %d.%d is too old: 3.11 or later is needed, such as " \
	  "make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about 1.2 GB, a few minutes."
	$(INSTALL) --editable '.[train]'
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), PyTorch included: a few minutes."
	$(INSTALL) --editable '.[train,test]'
	touch $@ $(VENV)/.train
