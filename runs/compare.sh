#!/usr/bin/env bash
# What the tables of README and docs show: the demo and the sums on three seeds, and every variant
# of the optimization chapters, one flag at a time from the default. Over an hour on two cores, which
# it keeps busy. What is finished is not made again, so it can be stopped and gone on with. From the
# repository's root:
#     PYTHON=.venv/bin/python bash runs/compare.sh && make docs
set -euo pipefail
: "${PYTHON:=python3}" "${RUN:=out/compare}" "${JOBS:=$("$PYTHON" -c 'import os; print(os.cpu_count())')}"

# A thread each for the variants: two processes of two threads would wait for each other.
export OMP_NUM_THREADS=1
"$PYTHON" runs/compare.py "$RUN" "$JOBS"
