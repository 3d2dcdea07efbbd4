"""The recipe for GPT-2 from its first command to its table, on weights that a test can make."""
import json
import math
import os
import subprocess
import sys

import torch
from test_gpt2 import made_up, needs_gpt2, write
from test_gpu import with_offset
from test_scripts import ROOT, read_log

from nanorlhf import devices, gpt2
from nanorlhf.gpt import GPT, GPTConfig
from runs import gpt2_hh


def transcript(i, said):
    return (f"\n\nHuman: What is {i}?\n\nAssistant: A number."
            f"\n\nHuman: And {i} and {i}?\n\nAssistant: {said}")


def pairs_of_people(folder):
    """-> paths of train.jsonl and test.jsonl"""
    paths = []
    for name, numbers in (("train", range(40)), ("test", range(40, 80))):
        rows = [
            {"chosen": transcript(i, f"It is {2 * i}."), "rejected": transcript(i, "Who knows?")}
            for i in numbers
        ]
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


@needs_gpt2
def test_gpt2_hh_from_weights_to_table(tmp_path):
    """A flag that a script does not know, a stage that starts from the wrong one, a recipe that
    begins anew when it is called again."""
    weights = write(tmp_path / "gpt2", *made_up(50257, 1024, 0.02))
    train, test = pairs_of_people(tmp_path)
    flags = {
        "init": weights,
        "train": train,
        "test": test,
        "run": tmp_path / "hh",
        "steps": 1,
        "answer": 8,
        "gb": 12,
    }
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def recipe(**more):
        words = [
            str(word) for name, value in {**flags, **more}.items() for word in (f"--{name}", value)
        ]
        return subprocess.run(
            [sys.executable, "-m", "runs.gpt2_hh", *words],
            cwd=ROOT,
            env=env,
            text=True,
            capture_output=True,
            timeout=600,
        )

    done = recipe()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads((tmp_path / "hh/results.json").read_text(encoding="utf-8"))
    assert (
        set(results["models"]) == {"sft", "ppo", "dpo"}
        and results["pairs"] == results["prompts"] == 40
    )
    logs = {stage: read_log(tmp_path / "hh" / stage) for stage in ("sft", "rm", "ppo", "dpo")}
    assert {stage: len(rows) for stage, rows in logs.items()} == dict.fromkeys(logs, 1)
    assert "invalid choice: '16'" in recipe(gb=16).stderr
    assert (
        recipe(test="").stderr
        == "error: --train and --test: two files of preference pairs are needed\n"
    )


@needs_gpt2
def test_gpt2_hh_in_bf16_on_logits_as_gpt2_has_them(tmp_path, monkeypatch):
    """Log-probs in steps of bf16 near -84 stop PPO at its first step, after SFT and the reward
    model have been trained; bounds that no longer know a wrong temperature."""
    size = GPTConfig(50257, 64, 2, 2, 64)
    gpt = with_offset(GPT(size, torch.Generator().manual_seed(0)))
    weights = write(tmp_path / "gpt2", *gpt2.layout(gpt))
    assert gpt(torch.tensor([[1, 2, 3]])).mean() < -70
    monkeypatch.setattr(devices, "bf16", lambda device: True)
    # the tests behind this one run on one thread
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    train, test = pairs_of_people(tmp_path)
    cfg = gpt2_hh.Config(init=weights, train=str(train), test=str(test), run=str(tmp_path / "hh"),
                         steps=2, answer=8, gb="12")
    gpt2_hh.main(cfg)
    logs = {stage: read_log(tmp_path / "hh" / stage) for stage in ("sft", "rm", "ppo", "dpo")}
    assert all(len(rows) == 2 for rows in logs.values())
    assert logs["ppo"][0]["kl"] == 0 and abs(logs["dpo"][0]["loss"] - math.log(2)) < 0.05
