"""Settings, randomness and files."""
import os
import pickle
from dataclasses import dataclass

import pytest
import torch

from nanorlhf import InputError, checkpoints, optim, seeds, settings
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.log import Log
from nanorlhf.tokenizer import Tokenizer


@dataclass
class Config:
    steps: int = 10     # how many
    # ---- the loss ----
    # price
    # of a nat
    beta: float = 0.1

    def __post_init__(self):
        settings.check(self)


def tiny():
    return GPT(GPTConfig(Tokenizer().vocab_size, 8, 1, 1, 8))


def test_settings(capsys):
    assert settings.parse(Config, "", ["--beta", "0", "--steps", "3"]) == Config(3, 0.0)
    for bad in (["--betta", "1"], ["--steps", "x"], ["--beta", "much"]):
        with pytest.raises(SystemExit) as stopped:
            settings.parse(Config, "", bad)
        assert stopped.value.code == 2
    for flag, text, value in (
        ("steps", "0", 0),
        ("beta", "-1", -1.0),
        ("beta", "nan", float("nan")),
    ):
        with pytest.raises(InputError, match=f"^--{flag} {text}: ") as from_shell:
            settings.parse(Config, "", [f"--{flag}", text])
        with pytest.raises(InputError) as from_python:
            Config(**{flag: value})
        assert str(from_shell.value) == str(from_python.value)
    for wrong in ({"steps": 1.5}, {"steps": True}, {"beta": "1"}):
        with pytest.raises(InputError, match="is needed"):
            Config(**wrong)
    with pytest.raises(SystemExit):
        settings.parse(Config, "", ["-h"])
    said = capsys.readouterr().out
    assert "price of a nat (default: 0.1)" in said and "---- the loss" not in said
    assert "the loss:\n  --beta" in said


@pytest.mark.parametrize("wrap, kind", [(lambda m: m, "gpt"), (ScalarModel, "scalar")])
def test_checkpoint_round_trip(tmp_path, wrap, kind):
    model, path = wrap(tiny()), str(tmp_path / "sft/model.pt")
    checkpoints.save_checkpoint(path, model, Tokenizer())
    again, tokenizer = checkpoints.load_checkpoint(str(tmp_path / "sft"), kind=kind)
    assert checkpoints.same_weights(model, again) and tokenizer.encode(
        "Marlow"
    ) == Tokenizer().encode("Marlow")
    with pytest.raises(InputError, match="is needed here"):
        checkpoints.load_checkpoint(path, kind="scalar" if kind == "gpt" else "gpt")


def test_a_checkpoint_of_an_earlier_version_gets_a_sentence(tmp_path):
    """A traceback about knobs that it does not have, or a world that it does not name."""
    path = str(tmp_path / "model.pt")
    checkpoints.save_checkpoint(path, tiny(), Tokenizer())
    state = torch.load(path, weights_only=True)
    torch.save({**state, "format": "nanorlhf-1"}, path)
    with pytest.raises(InputError, match="earlier version of nanorlhf; train that stage again"):
        checkpoints.load_checkpoint(str(tmp_path))


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_foreign_truncated_and_evil_files(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    checkpoints.save_checkpoint(str(tmp_path / "model.pt"), tiny(), Tokenizer())
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"hello", whole[:len(whole) // 2], pickle.dumps(Evil(), 2)):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(InputError, match="not a whole nanorlhf checkpoint"):
            checkpoints.load_checkpoint(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "f"
    checkpoints.write_atomically(str(path), lambda f: f.write("old"))

    def stopped(f):
        f.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.write_atomically(str(path), stopped)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """A traceback from os.makedirs: --run points below a file, or to a place that is read-only."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write .*file/sft/lock: Not a directory"):
        Log(str(tmp_path / "file" / "sft"), Config(), 1, 1)


def test_generators_are_named():
    def draw(purpose):
        return torch.rand(3, generator=seeds.generator(0, purpose)).tolist()

    assert draw("a") == draw("a") != draw("b")
    assert seeds.rng(0, "a").random() == seeds.rng(0, "a").random()


def test_draws_keep_every_source_that_they_make():
    """A source that a resumed run draws from anew; two purposes that share one."""
    draws = seeds.Draws(3)
    sampling, prompts = draws.generator("sampling"), draws.rng("prompts")
    assert torch.equal(
        torch.rand(2, generator=sampling), torch.rand(2, generator=seeds.generator(3, "sampling"))
    )
    assert prompts.random() == seeds.rng(3, "prompts").random()
    state = draws.state_dict()
    assert set(state) == {"sampling", "prompts"}
    drawn = torch.rand(4, generator=sampling), prompts.random()
    again = seeds.Draws(3)
    other, others = again.generator("sampling"), again.rng("prompts")
    again.load_state_dict(state)
    assert torch.equal(torch.rand(4, generator=other), drawn[0]) and others.random() == drawn[1]
    with pytest.raises(ValueError, match="has a source already"):
        draws.rng("sampling")


def test_a_nan_gradient_does_not_reach_the_weights():
    model = tiny()
    before = model.wpe.weight.clone()
    (model.wpe.weight.sum() * float("nan")).backward()
    with pytest.raises(InputError, match="lower --lr"):
        optim.update(model, optim.adamw(model, 0.1), 0.1, 1.0)
    assert torch.equal(model.wpe.weight, before)


def test_learning_rate_by_hand():
    """Warm-up from above 0, so that no step is wasted; the whole rate once; a last step that still
    moves."""
    assert [optim.linear(i, 6, 1.0, warmup=2) for i in range(6)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4]
    )
    assert [optim.linear(i, 2, 0.5) for i in range(2)] == pytest.approx(
        [0.5, 0.25]
    ) and optim.linear(0, 1, 1.0, warmup=10) > 0


def test_a_gpu_that_is_full_is_one_sentence():
    """A traceback of fifty lines, of which one says what to do."""
    def main():
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2 GiB.\nIf reserved memory is large ..."
        )

    with pytest.raises(
        SystemExit,
        match=r"^error: the GPU's memory is too small \(CUDA out of memory. Tried to allocate "
        r"2 GiB.\); .*--micro_batch",
    ):
        settings.script(main)
