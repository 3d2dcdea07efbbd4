"""The whole of RLHF on a made-up world whose true reward is known, offline, in minutes.

    python demo.py                              or: make demo
    python demo.py --seed 1 --run out/towns-1   another seed
"""
import time

import evaluate
import make_preferences
import train_base
import train_dpo
import train_grpo
import train_ppo
import train_rejection
import train_rm
import train_sft
from nanorlhf import InputError, settings, stages
from tools import report


def main():
    run, seed = stages.options(__doc__, "out/towns")
    start, common = time.perf_counter(), {"run": run, "seed": seed}
    # knows the facts, rambles
    stages.alone(train_base, **common)
    # answers, errors included; the same on demonstrations without filler
    stages.beside((train_sft, common), (train_sft, {**common, "tidy": True, "out": "sft_tidy"}))
    # what do people prefer? what would they?
    stages.alone(make_preferences, **common)
    stages.alone(train_rm, **common)
    # by trial; straight from the preferences; by trial without a critic; imitate the best of 16
    stages.beside((train_ppo, common), (train_dpo, common), (train_grpo, common),
                  (train_rejection, common))
    # every model on the same held-out questions
    print(f"\n=== evaluate.py {run} --seed {seed} ===", flush=True)
    results = evaluate.evaluate(run, seed=seed)
    try:
        print(f"\nWhat happened, in pictures:  {report.write(run)}")
    except InputError as e:         # without matplotlib
        print(f"\nNo report: {e}")
    print(f"The whole demo took {time.perf_counter() - start:.0f} s. "
          f"Talk to what it made:  python chat.py {run}/sft {run}/ppo")
    return results


if __name__ == "__main__":
    settings.script(main)
