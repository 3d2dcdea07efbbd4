"""How the tests call a script: in this process, since starting Python for each would take a
second; and how they run an RL script in the world of nanorlhf/exact.py."""
import importlib
import sys
from types import SimpleNamespace

import pytest

from nanorlhf import checkpoints, look, settings, worlds
from nanorlhf.exact import END, PROMPTS, T


def call(monkeypatch, script, *args):
    """The script with these words on its command line -> what train returns."""
    module, words = importlib.import_module(script), list(map(str, args))
    if hasattr(module, "Config"):
        made = []
        settings.script(lambda: made.append(
            module.train(settings.parse(module.Config, module.__doc__, words))))
        return made[0]
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    return settings.script(module.main)


def complaint(monkeypatch, script, *args):
    """-> the one sentence that the script ends with; a string as exit code means status 1."""
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, script, *args)
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith("error: ")
    assert "\n" not in stopped.value.code
    return stopped.value.code


def in_the_exact_world(monkeypatch, models):
    """Scripts that are called from here on ask the prompts of nanorlhf/exact.py, of models {name:
    model}, which are trained in place.

    Only what goes in and out is replaced: checkpoints, the world's questions and its gold (0).
    """
    tokenizer = SimpleNamespace(end=END, pad=END, user=None, prompt=lambda text: [int(text)],
                                decode=str, name="exact")

    def questions(n, rng, split):
        return [SimpleNamespace(text=str(PROMPTS[i % 2])) for i in range(n)]

    world = SimpleNamespace(questions=questions, JUDGED="judged", correct=None,
                            grade=lambda q, text, finished: {"gold": 0.0})
    monkeypatch.setattr(checkpoints, "load_checkpoint",
                        lambda path, *_, **__: (models[path], tokenizer))
    monkeypatch.setattr(worlds, "of", lambda _: world)
    monkeypatch.setattr(look, "show_answers", lambda *_: None)
    # in resume.py too, which imports it by name
    for module in (checkpoints, importlib.import_module("nanorlhf.resume")):
        monkeypatch.setattr(module, "save_checkpoint", lambda *_: None)


def play(monkeypatch, folder, script, policy, ref, reward_model, **settings):
    """Run script.train itself in the exact world: policy is trained in place, reward_model(ids) is
    read at the last token as usual."""
    in_the_exact_world(monkeypatch, {"policy": policy, "ref": ref, "reward": reward_model})
    script.train(script.Config(run=str(folder), device="cpu", init="policy", ref="ref",
                               reward="reward", max_new_tokens=T, **settings))
