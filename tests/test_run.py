"""Settings, randomness and files."""
import os
import pickle
from dataclasses import dataclass

import pytest
import torch

from nanorlhf import InputError, run
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.tokenizer import Tokenizer


@dataclass
class Config:
    steps: int = 10     # how many
    beta: float = 0.1   # price of a nat


def tiny():
    return GPT(GPTConfig(Tokenizer().vocab_size, 8, 1, 1, 8))


def test_settings(capsys):
    assert run.parse(Config, "", ["--beta", "0", "--steps", "3"]) == Config(3, 0.0)
    for bad in (["--betta", "1"], ["--steps", "x"], ["--steps", "0"], ["--beta", "-1"], ["--beta", "nan"]):
        with pytest.raises(SystemExit) as stopped:
            run.parse(Config, "", bad)
        assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        run.parse(Config, "", ["-h"])
    assert "price of a nat" in capsys.readouterr().out


@pytest.mark.parametrize("wrap, kind", [(lambda m: m, "gpt"), (ScalarModel, "scalar")])
def test_checkpoint_round_trip(tmp_path, wrap, kind):
    model, path = wrap(tiny()), str(tmp_path / "sft/model.pt")
    run.save_checkpoint(path, model, Tokenizer())
    again, tokenizer = run.load_checkpoint(str(tmp_path / "sft"), kind=kind)
    assert run.same_weights(model, again) and tokenizer.encode("Marlow") == Tokenizer().encode("Marlow")
    with pytest.raises(InputError, match="is needed here"):
        run.load_checkpoint(path, kind="scalar" if kind == "gpt" else "gpt")


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_foreign_truncated_and_evil_files(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    run.save_checkpoint(str(tmp_path / "model.pt"), tiny(), Tokenizer())
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"hello", whole[:len(whole) // 2], pickle.dumps(Evil(), 2)):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(InputError, match="not a whole nanorlhf checkpoint"):
            run.load_checkpoint(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "f"
    run.write_atomically(str(path), lambda f: f.write("old"))

    def stopped(f):
        f.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.write_atomically(str(path), stopped)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """A traceback from os.makedirs: --run points below a file, or to a place that is read-only."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write .*config.json"):
        run.Log(str(tmp_path / "file" / "sft"), Config(), 1, 1)


def test_generators_are_named():
    draw = lambda purpose: torch.rand(3, generator=run.generator(0, purpose)).tolist()
    assert draw("a") == draw("a") != draw("b") and run.rng(0, "a").random() == run.rng(0, "a").random()


def test_a_nan_gradient_does_not_reach_the_weights():
    model = tiny()
    before = model.wpe.weight.clone()
    (model.wpe.weight.sum() * float("nan")).backward()
    with pytest.raises(InputError, match="lower --lr"):
        run.update(model, run.adamw(model, 0.1), 0.1, 1.0)
    assert torch.equal(model.wpe.weight, before)


def test_learning_rate_by_hand():
    """Warm-up from above 0, so that no step is wasted; the whole rate once; a last step that still moves."""
    assert [run.linear(i, 6, 1.0, warmup=2) for i in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4])
    assert [run.linear(i, 2, 0.5) for i in range(2)] == pytest.approx([0.5, 0.25]) and run.linear(0, 1, 1.0, warmup=10) > 0


def test_a_gpu_that_is_full_is_one_sentence():
    """A traceback of fifty lines, of which one says what to do."""
    def main():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nIf reserved memory is large ...")

    with pytest.raises(SystemExit, match=r"^error: the GPU's memory is too small \(CUDA out of memory. Tried to allocate 2 GiB.\); .*--micro_batch"):
        run.script(main)
