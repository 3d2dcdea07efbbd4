"""GPT-2 on preferences of people, on one GPU: SFT, reward model, PPO and DPO, then both judged by
the reward model and by held-out pairs.

    python -m runs.gpt2_hh --train train.jsonl.gz --test test.jsonl.gz
    ... --steps 2                       every stage for two steps: does all of it run, does it fit?
    ... --gb 12                         a smaller card
    ... --gb 80 --init gpt2-medium      another size, or a folder of weights

The files are JSONL (.gz) of pairs, such as those of the data set Anthropic/hh-rlhf. A run that was
stopped goes on when it is called again. The learning rates are starting points from the literature.
"""
import time
from dataclasses import dataclass
from typing import Literal

import evaluate
import train_dpo
import train_ppo
import train_rm
import train_sft
from nanorlhf import InputError, settings, stages

# A card's memory in GB -> rows a forward, answers sampled at once; for GPT-2 (124 M), all of them
# 1024 tokens long. PPO needs most: policy and critic with gradients and AdamW, reference and reward
# model, 5.0 GB together; then 0.34 GB a row of a forward, or 0.1 GB a row of keys and values.
ROWS = {12: (8, 32), 24: (32, 64), 80: (128, 256)}


@dataclass
class Config:
    train: str = ""             # JSONL (.gz) of preference pairs to train on
    test: str = ""              # another, that nothing is trained on
    run: str = "out/hh"         # the run's folder
    seed: int = 0               # of everything drawn
    init: str = "gpt2"          # GPT-2 by name, or a folder of its weights
    gb: Literal["12", "24", "80"] = "24"    # the GPU's memory
    answer: int = 128           # longest answer
    steps: int = 0              # of every stage; 0: an epoch, of PPO 500

    def __post_init__(self):
        settings.check(self)
        if not self.train or not self.test:
            raise InputError("--train and --test: two files of preference pairs are needed")


def main(cfg):
    start, (micro_batch, rollouts) = time.perf_counter(), ROWS[int(cfg.gb)]
    common = {"run": cfg.run, "seed": cfg.seed, "micro_batch": micro_batch, "data": cfg.train,
              "resume": True, "held_out": 0.01}
    answer = {"max_new_tokens": cfg.answer}
    epoch = {"steps": cfg.steps, "batch_size": 32, "warmup": 100}
    stages.alone(train_sft, **common, **answer, **epoch, init=cfg.init, lr=5e-5)
    stages.alone(train_rm, **common, **epoch, lr=2e-5)
    stages.alone(train_ppo, **common, **answer, steps=cfg.steps or 500, batch_size=rollouts,
                 lr=5e-6, critic_lr=1e-5, beta=0.05)
    stages.alone(train_dpo, **common, **answer, **epoch, lr=5e-6, beta=0.1, nll=0.0)
    evaluate.evaluate(cfg.run, seed=cfg.seed, data=cfg.test, max_new_tokens=cfg.answer,
                      batch_size=rollouts)
    run = cfg.run
    print(f"\nThat took {time.perf_counter() - start:.0f} s. "
          f"Talk to what it made:  python chat.py {run}/sft {run}/ppo {run}/dpo")


if __name__ == "__main__":
    settings.script(lambda: main(settings.parse(Config, __doc__)))
