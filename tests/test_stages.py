"""Stages side by side: in processes of their own, heard of when they end, whatever ends them."""
import pytest

import train_base
import train_sft
from nanorlhf import InputError, Interrupted, stages

TINY = {"n_layer": 1, "n_embd": 16, "n_head": 2, "pages": 200, "steps": 3, "device": "cpu"}


def test_a_stage_alone_and_two_side_by_side(tmp_path, capsys):
    """A word of one stage in the other's output; a setting lost on the way to another process."""
    run = str(tmp_path / "run")
    model, tokenizer, log = stages.alone(train_base, run=run, **TINY)
    assert model.cfg.n_embd == 16 and list(log["step"]) == [1, 2, 3]
    assert f"=== train_base.py --run {run} --n_layer 1" in capsys.readouterr().out
    common = {"run": run, "steps": 2, "demonstrations": 64, "device": "cpu", "max_new_tokens": 8}
    stages.beside((train_sft, common), (train_sft, {**common, "tidy": True, "out": "sft_tidy"}))
    said = capsys.readouterr().out
    assert said.count(" s: train_sft.py") == 2 and "step " not in said
    for name in ("sft", "sft_tidy"):
        output = (tmp_path / "run" / name / "output.txt").read_text(encoding="utf-8")
        assert output.count("--- after sft") == 1
        assert (tmp_path / "run" / name / "model.pt").exists()
        assert stages.progress(f"{run}/{name}/output.txt") == f"{name} step 2/2"
    assert stages.progress(f"{run}/none/output.txt") == ""


def test_a_stage_that_fails_is_named(tmp_path):
    """An error of another process that is swallowed, or that leaves no word of where to look."""
    words = "train_sft.py --run .*base/model.pt does not exist.*see .*output.txt"
    with pytest.raises(InputError, match=words):
        stages.beside((train_sft, {"run": str(tmp_path)}))
    with pytest.raises(InputError, match="--lr"):
        stages.beside((train_sft, {"run": str(tmp_path), "lr": -1.0}))


def test_after_ctrl_c_no_stage_begins(tmp_path, monkeypatch):
    """The pool held all stages, and began with the next when one was stopped: minutes to wait."""
    run = str(tmp_path / "run")
    train_base.train(train_base.Config(run=run, **TINY))
    common = {"run": run, "steps": 2, "demonstrations": 64, "device": "cpu", "max_new_tokens": 8}
    told = []

    def wait(running, **_):
        told.append(len(running))
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "wait", wait)
    with pytest.raises(Interrupted, match="--out a.*\n.*--out b"):
        stages.beside(*((train_sft, {**common, "out": name}) for name in "abc"))
    assert told == [2] and not (tmp_path / "run" / "c").exists()


def test_options():
    assert stages.options("doc", "out/x", []) == ("out/x", 0)
    assert stages.options("doc", "out/x", ["--run", "out/y", "--seed", "3"]) == ("out/y", 3)
