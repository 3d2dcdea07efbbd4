"""tools/anatomy.py: the numbers are those of train_ppo's own next step."""

import math
import os

import numpy as np
import pytest
import torch
from calling import call, complaint

import train_ppo
from nanorlhf import checkpoints
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.log import read_log
from nanorlhf.tokenizer import Tokenizer
from tools import anatomy


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """sft and rm of random weights, two steps of PPO on them."""
    folder, tokenizer = tmp_path_factory.mktemp("anatomy"), Tokenizer()
    g = torch.Generator().manual_seed(0)
    size = GPTConfig(tokenizer.vocab_size, 96, 1, 2, 16)
    checkpoints.save_checkpoint(str(folder / "sft/model.pt"), GPT(size, g), tokenizer)
    reward_model = ScalarModel(GPT(size, g), g)
    checkpoints.save_checkpoint(str(folder / "rm/model.pt"), reward_model, tokenizer)
    settings = {
        "run": str(folder),
        "device": "cpu",
        "batch_size": 6,
        "max_new_tokens": 12,
        "lr": 1e-2,
        "lam": 0.9,
        "gamma": 0.99,
    }
    train_ppo.train(train_ppo.Config(**settings, steps=2))
    train_ppo.train(train_ppo.Config(**settings, steps=3, out="longer"))
    return folder


def test_it_is_the_step_that_the_script_takes_next(run):
    """Another prompt, another draw, a policy of a step before; a run that is changed by a look."""
    before = {name: (run / "ppo" / name).read_bytes() for name in os.listdir(run / "ppo")}
    step = anatomy.next_step(str(run))
    assert before == {name: (run / "ppo" / name).read_bytes() for name in os.listdir(run / "ppo")}
    third = {key: values[2] for key, values in read_log(run / "longer").items()}
    kl = torch.where(step.mask, step.logp - step.ref_logp, 0.0).sum(1).mean()
    assert third["kl"] == pytest.approx(kl.item(), rel=1e-5) and abs(kl) > 1e-3
    assert third["score"] == pytest.approx(step.scores.mean().item(), rel=1e-5)
    assert third["len"] == pytest.approx(step.mask.sum(1).float().mean().item())
    # of four updates the first is on the policy that wrote the answers
    assert len(step.updates) == 4 and sorted(step.updates[0][0] + step.updates[1][0]) == [*range(6)]
    rows, new = step.updates[0]
    old = step.logp[rows]
    torch.testing.assert_close(new[step.mask[rows]], old[step.mask[rows]], rtol=0, atol=1e-5)


def test_each_column_follows_from_those_before_it(run):
    """By hand, token by token: credit that is given to another token."""
    step = anatomy.next_step(str(run))
    for row in range(len(step.ids)):
        table = dict(anatomy.columns_of(step, row))
        n = len(table["id"])
        assert n == int(step.mask[row].sum()) and all(len(cells) == n for cells in table.values())
        number = {
            title: np.array([float(c or "nan") for c in cells])
            for title, cells in table.items()
            if title != "text" and "clip" not in title
        }
        rewards = -step.beta * number["k1"]
        rewards[-1] += number["score"][-1]
        assert np.isnan(number["score"][:-1]).all()
        assert number["r_t"] == pytest.approx(rewards, abs=3e-3)
        deltas, advantage = [], 0.0
        following = [*number["V_t"][1:], 0.0]
        for t in reversed(range(n)):
            deltas.insert(0, number["r_t"][t] + 0.99 * following[t] - number["V_t"][t])
            advantage = deltas[0] + 0.99 * 0.9 * advantage
            assert number["A_t"][t] == pytest.approx(advantage, abs=0.02)
        assert number["delta_t"] == pytest.approx(deltas, abs=3e-3)
        assert number["R_t"] == pytest.approx(number["A_t"] + number["V_t"], abs=3e-3)
        inside = step.advantages[step.mask]
        white = (number["A_t"] - inside.mean().item()) / inside.std(correction=0).item()
        assert number["white A_t"] == pytest.approx(white, abs=0.01)
        seen = [title for title in table if title.startswith("ratio")]
        assert len(seen) == 2  # an answer is in one update of each epoch
        for title in seen:
            k = title.split()[1]
            for ratio, side, loss, a in zip(
                number[title], table[f"clip {k}"], number[f"loss {k}"], number["white A_t"]
            ):
                bound = min(max(ratio, 0.8), 1.2)
                assert loss == pytest.approx(-min(ratio * a, bound * a), abs=0.01 * (1 + abs(a)))
                if side:
                    assert (ratio > 1.2 and a > 0) if side == "high" else (ratio < 0.8 and a < 0)


def test_the_command(run, monkeypatch, capsys, tmp_path):
    call(monkeypatch, "tools.anatomy", run, "--row", 1)
    out = capsys.readouterr().out
    for title in (
        "ref_logp",
        "-beta k1",
        "delta_t",
        "white A_t",
        "ratio",
        "GRPO, among three",
        "DPO, of the pair",
        "The reward model read at every token",
    ):
        assert title in out, title
    weight = float(out.rsplit("= ", 1)[1])
    margin = float(out.rsplit("a margin of ", 1)[1].split(",")[0])
    assert weight == pytest.approx(0.2 / (1 + math.exp(margin)), abs=2e-3)
    assert "--row 6: the batch has 6 answers" in complaint(
        monkeypatch, "tools.anatomy", run, "--row", 6
    )
    assert "make it first: python train_ppo.py --run" in complaint(
        monkeypatch, "tools.anatomy", tmp_path
    )
