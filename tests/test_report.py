"""Pictures and the report: the same each time, whole, of whatever is there, and safe."""

import dataclasses
import html
import json
import random
import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from calling import call, complaint

import train_dpo
import train_grpo
import train_ppo
import train_prm
import train_rm
import train_sft
from nanorlhf import InputError, figures
from nanorlhf.worlds import sums, towns
from tools import report

pytest.importorskip("matplotlib")
EVIL = '<script>alert("x")</script> & <b>'


def stage(run, name, config, rows, ended=True, **files):
    folder = run / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    if ended:
        (folder / "model.pt").write_bytes(b"")


def rows(n, **columns):
    """Columns as functions of the step."""
    return [{"step": i, **{key: f(i) for key, f in columns.items()}} for i in range(1, n + 1)]


def settings_of(script, **more):
    return {**dataclasses.asdict(script.Config(**more))}


RL = {
    "score": lambda i: i / 50,
    "gold": lambda i: i / 90,
    "kl": lambda i: i / 30,
    "entropy": lambda i: 1 / i,
}


def run_of_towns(run):
    stage(
        run,
        "base",
        {"world": "towns"},
        [
            {"step": i, "loss": 6 / i, **({"recall": i / 100} if i % 10 == 0 else {})}
            for i in range(1, 61)
        ],
    )
    stage(run, "sft", settings_of(train_sft, init=EVIL), rows(30, loss=lambda i: 1 / i))
    stage(
        run,
        "rm",
        settings_of(train_rm),
        rows(20, loss=lambda i: 0.7, accuracy=lambda i: 0.6),
        report={"accuracy": 0.75, "pairs": 90, "noise_ceiling": 0.85, "longer_wins": 0.4},
    )
    stage(
        run,
        "rejection",
        {"curve_prompts": 4},
        rows(9, loss=lambda i: 1 / i),
        best_of_n=[{"n": n, "proxy": n / 9, "gold": n / 20, "kl_bound": 0.1} for n in (1, 2, 4)],
    )
    stage(run, "ppo", settings_of(train_ppo), rows(100, **RL))
    stage(run, "grpo", settings_of(train_grpo), rows(80, **RL))
    stage(
        run,
        "dpo",
        settings_of(train_dpo),
        rows(
            50,
            loss=lambda i: 0.6,
            chosen=lambda i: -i / 9,
            rejected=lambda i: -i / 5,
            margin=lambda i: i,
        ),
    )
    question = towns.SHOWN[0]
    said = f"{towns.demonstration(question, __import__('random').Random(0))} {EVIL}"
    row = {
        "gold": 0.5,
        "gold_ci95": 0.1,
        "kl_to_sft": 1.0,
        "gold_by_temperature": {"0": 0.4, "1": 0.5},
        "at_best": {"gold": 0.6, "gold_ci95": 0.1},
    }
    (run / "results.json").write_text(
        json.dumps(
            {
                "models": {name: row for name in ("base", "sft", "ppo", EVIL)},
                "samples_shown": [
                    {
                        "question": EVIL,
                        "answers": {
                            "ppo": {
                                "text": said,
                                "parts": towns.parts(question, said),
                                "explained": EVIL,
                            }
                        },
                    }
                ],
            }
        )
    )


def svgs(page):
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


def test_the_report_of_a_whole_run(tmp_path):
    """A stage left out, a picture that is no picture, a page that asks for something from outside
    or runs what a model wrote."""
    run = tmp_path / "towns"
    run_of_towns(run)
    page = report.page(str(run))
    assert page == report.page(str(run)) and len(page) < 3_000_000
    order = [
        page.index(f'<section id="{name}">')
        for name in ("base", "sft", "rm", "rejection", "ppo", "grpo", "dpo", "results", "answers")
    ]
    assert order == sorted(order)
    made = svgs(page)
    assert len(made) == 2 + 1 + 2 + 2 + 3 + 3 + 3 + 4
    for svg in made:
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
        assert "var(--c0, #0072b2)" in svg and "var(--ink, #333333)" in svg
        # text is text, to be read and searched
        assert "<text" in svg and "<dc:date>" not in svg
    assert "<script" not in page and EVIL not in page and "&lt;script&gt;" in page
    addresses = set(re.findall(r"""(?:href|src|url)\s*[=(]\s*["']?([^"')\s>]+)""", page))
    assert all(address.startswith("#") for address in addresses)
    said = html.unescape(page)
    assert "Held-out accuracy 75.0% of 90 pairs; the labels' noise allows 85.0%" in said
    assert "the labels' ceiling" in page
    assert page.count("The doctor") == 7 and "nothing found." in page
    # what each sentence earned
    assert re.search(r'<span class="(right|wrong)" title="(right|wrong)">The ', page)


def test_what_is_there_is_enough(tmp_path, monkeypatch, capsys):
    """An interrupted run, a single stage, a world without gold, a file of one's own."""
    run = tmp_path / "one"
    stage(
        run, "ppo", settings_of(train_ppo), rows(3, score=lambda i: i, kl=lambda i: 0), ended=False
    )
    call(monkeypatch, "tools.report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "3 steps, not finished." in page and "gold" not in svgs(page)[0]
    assert f"wrote {run}/report.html" in capsys.readouterr().out
    begun = tmp_path / "begun"
    stage(begun, "sft", settings_of(train_sft), [], ended=False)
    assert "0 steps, not finished." in report.page(str(begun))
    right = tmp_path / "sums"
    stage(
        right,
        "prm",
        settings_of(train_prm),
        rows(9, loss=lambda i: 1, accuracy=lambda i: 0.5),
        report={"judged_accuracy": 0.9, "judged": 70, "one_answer_for_all": 0.6},
    )
    question = sums.SHOWN[0]
    text = sums.demonstration(question, random.Random(0))
    (right / "results.json").write_text(
        json.dumps(
            {
                "models": {
                    "sft": {"greedy": 0.5, "accuracy": 0.4, "pass@8": 0.9, "majority@8": 0.5}
                },
                "samples_shown": [
                    {
                        "question": question.text,
                        "answers": {
                            "sft": {
                                "text": text,
                                "parts": sums.parts(question, text),
                                "explained": sums.explain(question, text),
                            }
                        },
                    }
                ],
            }
        )
    )
    page = report.page(str(right))
    assert len(svgs(page)) == 2 + 4 and "Held-out accuracy 90.0% of 70 verdicts" in page
    assert "".join(re.findall(r'<span class="\w+" title="\w+">(.*?)</span>', page)) == text
    own = tmp_path / "own"
    own.mkdir()
    (own / "results.json").write_text(
        json.dumps(
            {
                "models": {
                    "sft": {
                        "proxy": 0.1,
                        "proxy_ci95": 0.1,
                        "win_rate_vs_sft": 0.5,
                        "kl_to_sft": 0.0,
                    }
                }
            }
        )
    )
    assert len(svgs(report.page(str(own)))) == 3


def test_what_is_no_run(tmp_path, monkeypatch):
    assert "no such folder; give a run's" in complaint(monkeypatch, "tools.report", tmp_path / "x")
    assert "no stage has left a log there" in complaint(monkeypatch, "tools.report", tmp_path)
    (tmp_path / "results.json").write_text("{oops")
    assert "results.json: not JSON" in complaint(monkeypatch, "tools.report", tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_without_matplotlib(tmp_path, monkeypatch):
    """A traceback at the end of make demo for who installed by hand."""
    run = tmp_path / "one"
    stage(run, "ppo", settings_of(train_ppo), rows(3, score=lambda i: i))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        report.page(str(run))


def test_the_running_mean():
    """A mean that looks ahead, or counts what is not there."""
    got = figures.smooth([1, 2, np.nan, 4, 8], 2)
    assert got.tolist() == [1, 1.5, 2, 4, 6]
    assert np.isnan(figures.smooth([np.nan, 1], 1)[0])


def test_panels_that_are_compared_have_one_scale(tmp_path):
    """PPO's gold beside GRPO's on another axis: the flatter curve looks like the steeper one."""
    run = tmp_path / "run"
    stage(run, "ppo", settings_of(train_ppo), rows(5, kl=lambda i: 10.0 * i))
    stage(run, "grpo", settings_of(train_grpo), rows(5, kl=lambda i: i))
    stages = report.read_stages(str(run))
    assert report.limits(stages, ["kl"]) == (1 - 0.05 * 49, 50 + 0.05 * 49)
    ticks = [
        re.findall(r"<!-- (−?[0-9.]+) -->", svgs(report.section(s, stages))[0]) for s in stages
    ]
    assert ticks[0][-3:] == ticks[1][-3:]
