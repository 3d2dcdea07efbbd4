#!/usr/bin/env bash
# The tables of the README: every variant of the optimization chapters, one flag at a time from the default. About an hour on two cores, which
# it keeps busy with a process each; what is finished is not made again, so it can be stopped and gone on with. From the repository's root:
#     PYTHON=.venv/bin/python bash runs/compare.sh
set -euo pipefail
: "${PYTHON:=python3}" "${RUN:=out/compare}" "${JOBS:=$("$PYTHON" -c 'import os; print(os.cpu_count())')}"

export OMP_NUM_THREADS=1        # a thread each: two processes of two threads would wait for each other, and more threads add floats in another order
"$PYTHON" runs/compare.py "$RUN" "$JOBS"
