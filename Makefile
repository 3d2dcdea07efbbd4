# make demo    environment, then the whole pipeline on the made-up world, offline
# make test    the test suite
# make lint    ruff, as pyproject.toml has it
# make lab     what the book claims, tried: hours at first, then what is missing (docs/LAB.md)
# make docs    the tables and figures of README.md and docs, from docs/data (runs/compare.py makes it)
# make demo SEED=1 RUN=out/towns-1                    another seed
# make demo PYTHON=python3                            an environment that is already there

SEED ?= 0
RUN ?= out/towns
PYTHON ?= .venv/bin/python

ifeq ($(PYTHON),.venv/bin/python)
ENVIRONMENT = .venv/installed
endif

demo: $(ENVIRONMENT)
	$(PYTHON) demo.py --run $(RUN) --seed $(SEED)

test: $(ENVIRONMENT)
	$(PYTHON) -m pytest -q \
		$(shell $(PYTHON) -c 'import xdist' 2>/dev/null && echo --numprocesses 2 --dist loadfile) tests

lint: $(ENVIRONMENT)
	$(PYTHON) -m ruff check

.venv/installed: requirements.txt
	python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nanorlhf needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

lab: $(ENVIRONMENT)
	$(PYTHON) -m lab.all --runs $(RUN)

docs: $(ENVIRONMENT)
	$(PYTHON) -m runs.tables
	$(PYTHON) -m runs.pictures
	$(PYTHON) -m runs.book
	$(PYTHON) -m lab.all --page

clean:
	rm -rf .venv out

.PHONY: demo test lint lab docs clean
