"""The worked example of a new world (nanorlhf/worlds/sorting.py), from pretraining to a table.

    python -m runs.sorting                      a few minutes on two laptop cores
    python -m runs.sorting --seed 1 --run out/sorting-1
"""
import time

import evaluate
import train_base
import train_grpo
import train_rejection
import train_sft
from nanorlhf import settings, stages


def main():
    run, seed = stages.options(__doc__, "out/sorting")
    start, common = time.perf_counter(), {"run": run, "seed": seed}
    # sorts
    stages.alone(train_base, **common, world="sorting", batch_size=32, lr=1.5e-3, steps=1500)
    # answers as people do: what stands twice is written once
    stages.alone(train_sft, **common)
    # a check of the answer, by trial and by imitation
    check = {**common, "reward": "verifier"}
    stages.beside(
        (train_grpo, {**check, "beta": 0.0, "advantage": "dr_grpo", "aggregate": "token",
                      "prompts": 32, "steps": 40, "lr": 1e-4}),
        (train_rejection, check))
    print(f"\n=== evaluate.py {run} --seed {seed} ===", flush=True)
    results = evaluate.evaluate(run, seed=seed)
    print(f"\nThat took {time.perf_counter() - start:.0f} s. "
          f"Ask what it made:  echo '3 1 2 1=' | python chat.py {run}/sft {run}/grpo")
    return results


if __name__ == "__main__":
    settings.script(main)
