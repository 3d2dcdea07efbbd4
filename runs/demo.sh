#!/usr/bin/env bash
# The whole of RLHF on the made-up world, offline. From the repository's root: make demo, or
#     SEED=1 RUN=out/towns-1 PYTHON=python3 bash runs/demo.sh
set -euo pipefail
: "${PYTHON:=python3}" "${SEED:=0}" "${RUN:=out/towns}"

. "$(dirname "$0")/stage.sh"

stage train_base.py --run "$RUN" --seed "$SEED"         # knows the facts, rambles
stage train_sft.py --run "$RUN" --seed "$SEED"          # answers, mistakes included
stage train_rm.py --run "$RUN" --seed "$SEED"           # what do people prefer?
stage train_rejection.py --run "$RUN" --seed "$SEED"    # keep the best of 16, imitate it
stage train_ppo.py --run "$RUN" --seed "$SEED"          # learn by trial
stage train_grpo.py --run "$RUN" --seed "$SEED"         # the same, without a critic
stage train_dpo.py --run "$RUN" --seed "$SEED"          # straight from the preferences
stage evaluate.py "$RUN" --seed "$SEED"
echo
echo "The whole demo took $SECONDS s. Talk to what it made:  $PYTHON chat.py $RUN/sft $RUN/ppo"
