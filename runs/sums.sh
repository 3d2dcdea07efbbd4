#!/usr/bin/env bash
# RL from verifiable rewards on sums that are worked out column by column, offline. From the
# repository's root:
#     SEED=1 RUN=out/sums-1 PYTHON=python3 bash runs/sums.sh
set -euo pipefail
: "${PYTHON:=python3}" "${SEED:=0}" "${RUN:=out/sums}"

. "$(dirname "$0")/stage.sh"
# For the stages that run alone, whatever the machine has: floats add up in another order with
# another number of threads, and with the same number a recipe gives the same figures.
export OMP_NUM_THREADS=2
run="--run $RUN --seed $SEED"

# works sums out, and knows how to lend
stage train_base.py $run --world sums --n_layer 3 --n_embd 96 --batch_size 32 --lr 1.5e-3 --steps 4000
# answers as people do: most lend nothing, some slip
stage train_sft.py $run
# GRPO without a reward model and without a KL: the answer is checked. One right or wrong for 25
# tokens is a noisy signal: large batches, small steps. The reward models: will the answer be right,
# is each step right?
beside "train_grpo.py $run --reward verifier --beta 0 --advantage dr_grpo --aggregate token --prompts 32 --samples 8 --steps 60 --lr 5e-5" \
       "train_rm.py $run --loss outcome --out orm --cool 1" \
       "train_rm.py $run --loss process --out prm --cool 1"
stage evaluate.py "$RUN" --seed "$SEED" --prompts 768
echo
echo "That took $SECONDS s. Ask what it made:  echo 402-395= | $PYTHON chat.py $RUN/sft $RUN/grpo"
