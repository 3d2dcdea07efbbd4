"""Every script can be called: from plain Python, from a thread, with the same words as a shell."""
import subprocess
import sys
import threading

import pytest
from calling import complaint
from conftest import ROOT

import evaluate
import make_preferences
import train_base
import train_distill
import train_dpo
import train_grpo
import train_ppo
import train_rm
import train_sft
from nanorlhf import InputError

TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "pages": 300, "steps": 10}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    common = {"run": tmp_path_factory.mktemp("called") / "run", "device": "cpu"}
    train_base.train(train_base.Config(**common, **TINY))
    train_sft.train(train_sft.Config(**common, demonstrations=64))
    make_preferences.train(make_preferences.Config(**common, prompts=16))
    train_rm.train(train_rm.Config(**common))
    return common


def sweep(start, betas=(0.0, 0.4)):
    """One setting, plain Python: what a reader would write."""
    kls = {}
    for beta in betas:
        cfg = train_ppo.Config(**start, out=f"ppo_{beta}", beta=beta, steps=3, batch_size=4)
        policy, tokenizer, log = train_ppo.train(cfg)
        kls[beta] = log["kl"]
        assert list(log["step"]) == [1, 2, 3] and set(log) >= {"score", "gold", "kl", "beta"}
        assert (log["beta"] == beta).all() and len(log["gold"]) == 3
        assert policy.cfg.vocab_size == tokenizer.vocab_size
    return kls


def test_a_sweep_from_python_and_from_a_thread(start):
    """A script that reads sys.argv or sets signal handlers where that is an error; another run in
    a thread than outside."""
    here, there = sweep(start), []
    thread = threading.Thread(target=lambda: there.append(sweep(start)))
    thread.start()
    thread.join()
    assert there and all((here[beta] == there[0][beta]).all() for beta in here)


def test_evaluate_returns_its_results(start):
    results = evaluate.evaluate(start["run"], models=["sft"], prompts=32, device="cpu")
    assert results["prompts"] == 32 and "sft" in results["models"]
    with pytest.raises(InputError, match="--prompts 8: it must be at least 32"):
        evaluate.evaluate(start["run"], prompts=8)


@pytest.mark.parametrize(
    "module, settings, words",
    [
        (train_ppo, {"beta": -1.0}, ("--beta", "-1")),
        (train_ppo, {"temperature": 0.0}, ("--temperature", "0")),
        (train_grpo, {"kl": "k3"}, ("--kl", "k3")),
        (train_dpo, {"gamma": 2.0}, ("--gamma", "2")),
        (train_distill, {"mix": 0.2}, ("--mix", "0.2")),
        (train_base, {"world": "atlantis"}, ("--world", "atlantis")),
        (train_base, {"knobs": "x"}, ("--knobs", "x")),
    ],
)
def test_a_wrong_setting_is_the_same_sentence(module, settings, words, monkeypatch):
    with pytest.raises(InputError) as from_python:
        module.Config(**settings)
    assert complaint(monkeypatch, module.__name__, *words) == f"error: {from_python.value}"


def test_a_generator_beside_the_draws_is_not_resumed_silently(start, monkeypatch, tmp_path):
    """The sources of a loop come from seeds.Draws, which is kept whole; resume.steps takes nothing
    else, so a loop without one does not begin."""
    from nanorlhf import resume
    from nanorlhf.log import Log
    cfg = train_ppo.Config(run=tmp_path)
    log = Log(str(tmp_path), cfg, 2, 1)
    with pytest.raises(TypeError, match="draws"):
        next(resume.steps(log, None, None, {"optimizer": None}, {}))


def test_importing_a_script_runs_nothing():
    """A script that trains where it is imported, or warns."""
    code = "import train_ppo, train_grpo, train_dpo, evaluate, demo, chat; print('quiet')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "quiet\n"), done.stderr
