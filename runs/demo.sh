#!/usr/bin/env bash
# The whole of RLHF on the made-up world, offline. From the repository's root: make demo, or
#     SEED=1 RUN=out/towns-1 PYTHON=python3 bash runs/demo.sh
set -euo pipefail
: "${PYTHON:=python3}" "${SEED:=0}" "${RUN:=out/towns}"

. "$(dirname "$0")/stage.sh"
# For the stages that run alone, whatever the machine has: floats add up in another order with
# another number of threads, and with the same number a recipe gives the same figures.
export OMP_NUM_THREADS=2
run="--run $RUN --seed $SEED"

stage train_base.py $run                                # knows the facts, rambles
beside "train_sft.py $run" \
       "train_sft.py $run --tidy --out sft_tidy"        # answers, errors included; the same, tidied up
stage train_rm.py $run                                  # what do people prefer?
beside "train_ppo.py $run" \
       "train_dpo.py $run" \
       "train_grpo.py $run" \
       "train_rejection.py $run"                        # by trial; straight from the preferences;
                                                        # by trial without a critic; imitate the best of 16
stage evaluate.py "$RUN" --seed "$SEED"
echo
echo "The whole demo took $SECONDS s. Talk to what it made:  $PYTHON chat.py $RUN/sft $RUN/ppo"
