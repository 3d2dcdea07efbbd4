#!/usr/bin/env bash
# The tables of the README: every variant of the optimization chapters, one flag at a time from the default. Over an hour on two cores;
# what is finished is not made again, so that it can be stopped and gone on with. From the repository's root:
#     PYTHON=.venv/bin/python bash runs/compare.sh
set -euo pipefail
: "${PYTHON:=python3}" "${RUN:=out/compare}"

for seed in 0 1 2; do
    if [ ! -e "$RUN/towns-$seed/results.json" ]; then
        echo "=== the demo, seed $seed (its output goes to $RUN/demo-$seed.txt) ==="
        mkdir -p "$RUN"
        PYTHON=$PYTHON SEED=$seed RUN=$RUN/towns-$seed bash runs/demo.sh > "$RUN/demo-$seed.txt"
    fi
    if [ ! -e "$RUN/sums-$seed/results.json" ]; then
        echo "=== sums, seed $seed (its output goes to $RUN/sums-$seed.txt) ==="
        PYTHON=$PYTHON SEED=$seed RUN=$RUN/sums-$seed bash runs/sums.sh > "$RUN/sums-$seed.txt"
    fi
done
"$PYTHON" runs/compare.py "$RUN"
