"""bench.py counts what it says it counts. How fast anything is, no test asks."""
import importlib.util
import json
import sys

import pytest

from nanorlhf import InputError
from nanorlhf.gpt import GPTConfig
from tools import bench

TINY = (GPTConfig(64, 32, 1, 2, 16), 4, 6, 10, 8)       # 4 rows of 6 + 10 tokens; 8 answers


@pytest.mark.parametrize("kind", bench.KINDS)
def test_a_row_of_the_table(kind, monkeypatch):
    """Padding or prompts counted twice, a pass that is left out, steps that do not train."""
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)
    row = bench.measure("tiny", kind, "cpu", 2, rate=1e9)
    tokens, flops = (
        row["tokens_per_second"] * row["seconds"],
        row["matmul_share"] * 1e9 * row["seconds"],
    )
    # a block's matrices, biases and LayerNorms; the embedding
    body, head = 12 * 16 ** 2 + 13 * 16, 64 * 16
    if kind == "generation":
        assert 8 * 1 <= tokens <= 8 * 10 and flops == pytest.approx(
            2 * body * (8 * 6 + tokens) + 2 * head * tokens
        )
    # sampling, four forwards, twice a step (3) of policy and critic; critic and reward model have
    # no head
    elif kind == "ppo":
        assert 8 * 7 <= tokens <= 8 * 16 and flops == pytest.approx(
            2 * body * 17 * tokens + 2 * head * 9 * (tokens - 8 * 6)
        )
    else:
        answers = {"pretraining": 64, "sft": 40, "rm": 0, "dpo": 40}[kind]
        assert tokens == pytest.approx(4 * 16) and flops == pytest.approx(
            6 * body * 64 + 6 * head * answers
        )
    assert row["peak_mb"] >= 0


def test_the_steps_train():
    """A benchmark of a loop that does nothing."""
    bench.SIZES["tiny"] = TINY
    try:
        for kind in ("pretraining", "sft", "rm", "dpo", "ppo"):
            b = bench.Bench("tiny", bench.torch.device("cpu"))
            before = [p.clone() for p in b.policy.blocks.parameters()]
            steps = bench.KINDS[kind](b)
            next(steps), next(steps)
            assert any((p != old).any() for p, old in zip(b.policy.blocks.parameters(), before)), (
                kind
            )
    finally:
        del bench.SIZES["tiny"]


def test_the_command(monkeypatch, tmp_path, capsys):
    """A table and a file that differ."""
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "bench.py",
            "--sizes",
            "towns",
            "--kinds",
            "sft",
            "--repeats",
            "1",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "bench.json"),
        ],
    )
    bench.main()
    [row] = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    said = capsys.readouterr().out.splitlines()[-1].split()
    assert said[:2] == ["towns", "sft"] and float(said[2]) == pytest.approx(
        row["seconds"], abs=1e-3
    )


def test_without_trl_it_says_what_to_install(monkeypatch):
    from tools import beside_trl as beside
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["beside_trl.py"])
    with pytest.raises(InputError, match="TRL is not installed here"):
        beside.main()
