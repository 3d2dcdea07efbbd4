"""runs/compare.py takes an hour: what would end it is found out here, and what it makes of the
results."""
import importlib
import json
import os
import pathlib
import sys

import pytest

from nanorlhf import settings
from runs import compare

ROWS = (compare.PREFERENCES, compare.TOWNS, compare.REWARD_MODELS, compare.SUMS)
COMMANDS = [command for rows in ROWS for _, command, *_ in rows if command]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_scripts_take_the_commands(command):
    """A flag renamed since, or settings that contradict each other."""
    script, *flags = command.split()
    module = importlib.import_module(script.removesuffix(".py"))
    assert settings.parse(module.Config, "", flags) != module.Config() or not flags


def test_each_row_is_another_variant():
    """The same row twice under two names; a name twice, so that one checkpoint stands for both."""
    for rows in ROWS:
        names, commands = [row[0] for row in rows], [row[1] for row in rows if row[1]]
        assert len(set(names)) == len(names) and len(set(commands)) == len(commands)
    made = {name for name, *_ in compare.PREFERENCES}
    for command in (
        row[1] for row in compare.TOWNS + compare.REWARD_MODELS if row[1] and "{run}" in row[1]
    ):
        assert command.partition("{run}/")[2].partition("/")[0] in made


def test_main_asks_for_each_run_and_variant_once(monkeypatch, tmp_path):
    """A variant before the run that it starts from, or before its reward model; a seed left out;
    data
    that are never collected."""
    calls = []
    for kind in ("recipe", "train", "evaluate", "collect"):
        monkeypatch.setattr(compare, kind, lambda *args, kind=kind: calls.append((kind, *args)))
    compare.main(["--root", str(tmp_path), "--jobs", "2"])
    kinds = [kind for kind, *_ in calls]
    assert kinds[:7] == ["recipe"] * 6 + ["collect"] and kinds[-1] == "collect"
    assert kinds[7:-1] == sorted(kinds[7:-1], key=("train", "evaluate").index)
    assert {(args[0], args[2]) for kind, *args in calls if kind == "recipe"} == {
        (recipe, seed) for recipe in ("demo", "runs.sums") for seed in compare.SEEDS}
    trained = [tuple(args[1:3]) for kind, *args in calls if kind == "train"]
    wanted = [
        (seed, name)
        for name, _, *_, seeds in compare.PREFERENCES + compare.REWARD_MODELS + compare.TOWNS
        for seed in seeds
    ]
    assert sorted(trained) == sorted(wanted)
    places = [name for _, name in trained]
    first, second, third = (
        [places.index(name) for name, *_ in rows]
        for rows in (compare.PREFERENCES, compare.REWARD_MODELS, compare.TOWNS)
    )
    assert max(first) < min(second) and max(second) < min(third)
    evaluated = {args[1]: args[2] for kind, *args in calls if kind == "evaluate"}
    for name, *_, seeds in compare.TOWNS:
        assert [seed for seed in compare.SEEDS if name in evaluated[seed]] == list(seeds)
    assert set(compare.CHECKPOINTS) <= set(evaluated[0])


def test_collect_takes_what_is_there(tmp_path):
    """Figures of another seed or another world; a row that is not evaluated yet taken for an error;
    floats as long as they are."""
    for world, seed, names in (
        ("towns", 0, ("base", "sft", "dpo", "ipo")),
        ("towns", 2, ("sft",)),
        ("sums", 1, ("grpo",)),
    ):
        folder = tmp_path / f"{world}-{seed}"
        folder.mkdir()
        figures = dict.fromkeys(
            ("gold", "gold_ci95", "win_rate_vs_sft", "kl_to_sft", "proxy", "best_temperature"),
            seed + 1 / 3,
        )
        models = {
            name: {**figures, "at_best": {"told": seed + 2 / 3}, "mark": name} for name in names
        }
        (folder / "results.json").write_text(json.dumps({"models": models}))
    (tmp_path / "towns-0/rm").mkdir()
    (tmp_path / "towns-0/rm/report.json").write_text('{"accuracy": 0.75}')
    compare.collect(str(tmp_path), str(tmp_path / "data"))
    towns, variants, models, sums = (
        compare.read(tmp_path / f"data/{name}.json")
        for name in ("towns", "variants", "reward_models", "sums")
    )
    assert {name: list(seeds) for name, seeds in towns["rows"].items()} == {
        "base": ["0"],
        "sft": ["0", "2"],
        "dpo": ["0"],
    }
    assert (
        towns["rows"]["sft"]["2"]["gold"] == 2.3333
        and towns["rows"]["sft"]["2"]["at_best"]["told"] == 2.6667
    )
    assert (
        towns["seeds"] == [0, 2]
        and sums["seeds"] == [1]
        and sums["rows"]["grpo"]["1"]["mark"] == "grpo"
    )
    assert (
        list(variants["rows"]) == ["dpo", "ipo"]
        and variants["about"]["ipo"]["flags"] == "--loss ipo"
    )
    assert models["rows"] == {"rm": {"0": {"accuracy": 0.75}}}
    assert all(
        set(data) >= {"command", "commit", "versions"} for data in (towns, variants, models, sums)
    )


def test_a_run_that_fails_says_where_to_look(tmp_path, capsys):
    """An hour that ends in a traceback of subprocess; results of a run that broke off."""
    with pytest.raises(SystemExit, match="no_such_flag failed; see .*out.txt"):
        compare.call([sys.executable, "train_sft.py", "--no_such_flag"], f"{tmp_path}/out.txt")
    assert "unrecognized arguments" in pathlib.Path(f"{tmp_path}/out.txt").read_text(
        encoding="utf-8"
    )


def test_what_is_finished_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "call", lambda words, *_: called.append(words[-1]))
    called = []
    os.makedirs(tmp_path / "dpo")
    (tmp_path / "dpo/model.pt").write_bytes(b"")
    compare.train(str(tmp_path), 1, "dpo", "train_dpo.py --nll 0")
    compare.train(str(tmp_path), 1, "sft", "")
    compare.recipe("demo", str(tmp_path), 1)
    (tmp_path / "results.json").write_text("{}")
    compare.recipe("demo", str(tmp_path), 1)
    compare.train(str(tmp_path), 1, "ipo", "train_dpo.py --loss ipo")
    os.makedirs(tmp_path / "thumbs")
    (tmp_path / "thumbs/pairs.jsonl").write_text("")
    compare.train(str(tmp_path), 1, "thumbs", "make_preferences.py --labels thumbs")
    assert called == ["1", "1"]
