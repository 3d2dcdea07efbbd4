#!/usr/bin/env bash
# GPT-2 on preferences of people, on one GPU: SFT, reward model, PPO and DPO, then both judged by the reward model and by held-out pairs.
# TRAIN and TEST are JSONL (.gz) of pairs, such as the files of the data set Anthropic/hh-rlhf. From the repository's root:
#     TRAIN=train.jsonl.gz TEST=test.jsonl.gz PYTHON=python3 bash runs/gpt2_hh.sh
#     STEPS=2 TRAIN=... bash runs/gpt2_hh.sh          every stage for two steps: does all of it run, does it fit?
#     GB=12 INIT=gpt2-medium ANSWER=256 ...           a smaller card, another size or a folder of weights, longer answers
# A run that was stopped goes on when it is called again. The learning rates are starting points from the literature.
set -euo pipefail
: "${PYTHON:=python3}" "${SEED:=0}" "${RUN:=out/hh}" "${INIT:=gpt2}" "${GB:=24}" "${ANSWER:=128}" "${STEPS:=}"
: "${TRAIN:?a JSONL (.gz) of preference pairs to train on}" "${TEST:?another, that nothing is trained on}"

# Rows a forward, and answers sampled at once, for GPT-2 (124 M), all of them 1024 tokens long. PPO needs most: policy and critic with gradients
# and AdamW, reference and reward model, 5.0 GB together; then 0.34 GB a row of a forward, or 0.08 GB a row of keys and values.
case $GB in
    12) MICRO=8 ROLLOUTS=32 ;;
    24) MICRO=32 ROLLOUTS=64 ;;
    80) MICRO=128 ROLLOUTS=256 ;;
    *) echo "GB is 12, 24 or 80, the GPU's memory, not $GB" >&2; exit 1 ;;
esac

. "$(dirname "$0")/stage.sh"
common="--run $RUN --seed $SEED --micro_batch $MICRO --max_new_tokens $ANSWER --resume"
stage train_sft.py $common --data "$TRAIN" --init "$INIT" --batch_size 32 --lr 5e-5 --warmup 100 --steps "${STEPS:-0}"
stage train_rm.py $common --data "$TRAIN" --held_out 0.01 --batch_size 32 --lr 2e-5 --warmup 100 --steps "${STEPS:-0}"
stage train_ppo.py $common --data "$TRAIN" --batch_size $ROLLOUTS --lr 5e-6 --critic_lr 1e-5 --beta 0.05 --steps "${STEPS:-500}"
stage train_dpo.py $common --data "$TRAIN" --held_out 0.01 --batch_size 32 --lr 5e-6 --warmup 100 --beta 0.1 --nll 0 --steps "${STEPS:-0}"
stage evaluate.py "$RUN" --seed "$SEED" --data "$TEST" --max_new_tokens $ANSWER --batch_size $ROLLOUTS
echo
echo "That took $SECONDS s. Talk to what it made:  $PYTHON chat.py $RUN/sft $RUN/ppo $RUN/dpo"
