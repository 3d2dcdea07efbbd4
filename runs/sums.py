"""RL from verifiable rewards on sums that are worked out column by column, offline.

    python -m runs.sums
    python -m runs.sums --seed 1 --run out/sums-1
"""
import time

import evaluate
import make_preferences
import train_base
import train_grpo
import train_prm
import train_sft
from nanorlhf import settings, stages


def main():
    run, seed = stages.options(__doc__, "out/sums")
    start, common = time.perf_counter(), {"run": run, "seed": seed}
    # works sums out, and knows how to lend
    stages.alone(train_base, **common, world="sums", batch_size=32, lr=1.5e-3, steps=4000)
    # answers as people do: most lend nothing, some slip
    stages.alone(train_sft, **common)
    # each answer alone, right or wrong, and each of its steps
    stages.alone(make_preferences, **common, labels="thumbs", cool=1.0)
    # GRPO without a reward model and without a KL: the answer is checked. One right or wrong for
    # 25 tokens is a noisy signal: large batches, small steps. The reward models: will the answer
    # be right, is each step right?
    stages.beside(
        (train_grpo, {**common, "reward": "verifier", "beta": 0.0, "advantage": "dr_grpo",
                      "aggregate": "token", "prompts": 32, "samples_per_prompt": 8, "steps": 60,
                      "lr": 5e-5}),
        (train_prm, {**common, "out": "orm"}),
        (train_prm, {**common, "out": "prm", "supervision": "process"}))
    print(f"\n=== evaluate.py {run} --seed {seed} --prompts 768 ===", flush=True)
    results = evaluate.evaluate(run, seed=seed, prompts=768)
    print(f"\nThat took {time.perf_counter() - start:.0f} s. "
          f"Ask what it made:  echo 402-395= | python chat.py {run}/sft {run}/grpo")
    return results


if __name__ == "__main__":
    settings.script(main)
