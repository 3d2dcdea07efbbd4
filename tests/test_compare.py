"""runs/compare.py takes an hour: what would end it is found out here, and what it makes of the results."""
import importlib
import os
import pathlib
import sys

import pytest

from nanorlhf import run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "runs"))
import compare

COMMANDS = [command for rows in (compare.TOWNS, compare.REWARD_MODELS, compare.SUMS) for _, command, *_ in rows if command]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_scripts_take_the_commands(command):
    """A flag renamed since, or settings that contradict each other."""
    script, *flags = command.split()
    module = importlib.import_module(script.removesuffix(".py"))
    cfg = run.parse(module.Config, "", flags)
    assert cfg != module.Config()
    getattr(module, "check_settings", lambda _: None)(cfg)


def test_each_row_is_another_variant():
    """The same row twice under two names; a name twice, so that one checkpoint stands for both."""
    for rows in (compare.TOWNS, compare.REWARD_MODELS, compare.SUMS):
        names, commands = [row[0] for row in rows], [row[1] for row in rows if row[1]]
        assert len(set(names)) == len(names) and len(set(commands)) == len(commands)
    assert {used_by for _, _, used_by, _ in compare.REWARD_MODELS} <= {name for name, *_ in compare.TOWNS}
    for name, command, used_by, _ in compare.REWARD_MODELS[1:]:
        assert f"--reward {{run}}/{name}" in next(row[1] for row in compare.TOWNS if row[0] == used_by)


def test_of_seeds_by_hand():
    assert compare.of_seeds([0.5], "{:.2f}") == "0.50"
    assert compare.of_seeds([0.1, 0.2, 0.6], "{:.0%}") == "30% (10%, 20%, 60%)"


def test_main_asks_for_each_run_and_variant_once(monkeypatch, tmp_path, capsys):
    """A variant before the run that it starts from, or before its reward model; a seed left out; a table that reads another seed's results."""
    calls = []

    def figures(seed):
        return {name: dict.fromkeys(("gold", "win_rate_vs_sft", "kl_to_sft", "wrong_fact_rate", "greedy", "accuracy", "pass@8", "majority@8",
                                     "best_of_8_orm", "best_of_8_prm"), float(seed)) for name, *_ in compare.TOWNS + compare.SUMS}

    def note(kind, value=lambda *_: None):
        return lambda *args: calls.append((kind, *args)) or value(args[1])

    monkeypatch.setattr(compare, "recipe", note("recipe"))
    monkeypatch.setattr(compare, "train", note("train"))
    monkeypatch.setattr(compare, "evaluate", note("evaluate", figures))
    monkeypatch.setattr(compare, "read", lambda path: dict.fromkeys(("accuracy", "noise_ceiling", "gold_order"), 0.8))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path), "2"])
    compare.main()
    kinds = [kind for kind, *_ in calls]
    assert kinds == sorted(kinds, key=("recipe", "train", "evaluate").index)
    assert len(calls) == 6 + len([s for *_, seeds in compare.TOWNS + compare.REWARD_MODELS + compare.SUMS for s in seeds]) + 6
    trained = [args[2] for kind, *args in calls if kind == "train"]
    assert max(trained.index(name) for name, *_ in compare.REWARD_MODELS) < min(trained.index(name) for name, *_ in compare.TOWNS)
    said = capsys.readouterr().out
    assert "| sft |  |  | imitate answers | 1.00 (0.00, 1.00, 2.00) |" in said and "| grpo_filter | 0.00 |" in said


def test_a_run_that_fails_says_where_to_look(tmp_path, capsys):
    """An hour that ends in a traceback of subprocess; results of a run that broke off."""
    with pytest.raises(SystemExit, match="no_such_flag failed; see .*out.txt"):
        compare.call([sys.executable, "train_sft.py", "--no_such_flag"], f"{tmp_path}/out.txt")
    assert "unrecognized arguments" in pathlib.Path(f"{tmp_path}/out.txt").read_text(encoding="utf-8")


def test_what_is_finished_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "call", lambda words, *_: called.append(words[-1]))
    called = []
    os.makedirs(tmp_path / "dpo")
    (tmp_path / "dpo/model.pt").write_bytes(b"")
    compare.train(str(tmp_path), 1, "dpo", "train_dpo.py --nll 0")
    compare.train(str(tmp_path), 1, "sft", None)
    compare.recipe("runs/demo.sh", str(tmp_path), 1)
    compare.train(str(tmp_path), 1, "cdpo", "train_dpo.py --loss cdpo")
    assert called == [f"RUN={tmp_path}", "1"]
