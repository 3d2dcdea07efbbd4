"""People's files through the scripts, from the command line: what is learned from them, and what
is said."""

import json
import math
import os
import pathlib
from collections import Counter

import pytest
import torch
from calling import call, complaint
from test_data import HH, write
from test_scripts import from_file, read_log

from nanorlhf import files
from nanorlhf.batches import answer_batch
from nanorlhf.logprobs import answer_logprobs
from nanorlhf.tokenizer import Tokenizer

NAMES = "Ada Bob Cleo Dan Eve Finn Gus Hal Ivy Joe Kim Lou".split()


def thumbs():
    return [
        {
            "prompt": f"Is {name} kind?",
            "completion": "Yes." if i % 3 else "No!",
            "label": bool(i % 3),
        }
        for i, name in enumerate(NAMES)
    ]


def logprob(model, tokenizer, prompt, answer):
    ids, mask = answer_batch(
        [tokenizer.prompt(prompt)],
        [tokenizer.completion(answer)],
        tokenizer.pad,
        torch.device("cpu"),
    )
    with torch.no_grad():
        return answer_logprobs(model, ids, mask).item()


def test_kto_learns_from_answers_judged_alone(tmp_path, monkeypatch, capsys):
    """Refused; or the disliked answers learned like the liked ones. The weights do nothing."""
    path = write(tmp_path / "thumbs.jsonl", thumbs())
    words = ("--loss", "kto", "--nll", 0, "--steps", 30, "--batch_size", 4, "--lr", 3e-3)
    gains = {}
    for name, weights in (("even", ()), ("down", ("--lambda_D", 0.01, "--lambda_U", 2))):
        policy, tok, log = call(
            monkeypatch, *from_file(tmp_path, "train_dpo", path, *words, "--out", name, *weights)
        )
        assert all(map(math.isfinite, log["loss"]))
        gains[name] = [
            logprob(policy, tok, f"Is {NAMES[1]} kind?", said) for said in ("Yes.", "No!")
        ]
        assert log["loss"][-5:].mean() < log["loss"][0] - 0.05
    out = capsys.readouterr().out
    assert f"{path}: 0 pairs, 12 answers judged alone of 12 rows" in out
    assert "lambda_D n_D / (lambda_U n_U) is " in out and "held-out rows: loss" in out
    # liked above disliked, and further down where it is the disliked that count
    assert gains["even"][0] > gains["even"][1] + 5
    assert gains["down"][1] < gains["down"][0] and gains["down"][0] < gains["even"][0]
    said = complaint(monkeypatch, *from_file(tmp_path, "train_dpo", path))
    assert f"{path}:1: answers that were judged alone: train_dpo.py --loss kto learns" in said
    said = complaint(monkeypatch, *from_file(tmp_path, "train_dpo", path, "--lambda_D", 2))
    assert "--lambda_D has no effect on --loss dpo" in said


def test_sft_imitates_the_liked_answers_alone(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "thumbs.jsonl", thumbs())
    call(monkeypatch, *from_file(tmp_path, "train_sft", path, "--show_batch"))
    out = capsys.readouterr().out
    assert (
        "8 conversations of 12 rows" in out
        and f"dropped: label false, not to be imitated: 4 (first at {path}:1)" in out
    )
    assert "[Y" in out and "No" not in out.split("--- after")[0].split("8 conversations")[1]


def test_a_model_of_steps_from_a_file(tmp_path, monkeypatch):
    """The verdicts learned at another token, or for another step."""
    rows = []
    for i in range(60):
        a, b = i % 9 + 1, i % 7 + 1
        rows.append(
            {
                "prompt": f"{a} and {b}?",
                "completions": [f"{a} is odd" if a % 2 else f"{a} is even", f"{b} is odd"],
                "labels": [True, bool(b % 2)],
            }
        )
    path = write(tmp_path / "steps.jsonl", rows)
    chats = write(
        tmp_path / "chats.jsonl", [{"prompt": row["prompt"], "completion": "yes"} for row in rows]
    )
    call(
        monkeypatch, *from_file(tmp_path, "train_sft", chats, "--tokenizer", "sums", "--n_embd", 32)
    )
    words = ("train_prm", "--run", tmp_path / "own", "--data", path, "--device", "cpu")
    call(
        monkeypatch,
        *words,
        "--supervision",
        "process",
        "--steps",
        200,
        "--batch_size",
        16,
        "--lr",
        3e-3,
    )
    report = json.loads((tmp_path / "own/prm/report.json").read_text())
    assert report["judged_accuracy"] > report["one_answer_for_all"] + 0.1
    said = complaint(monkeypatch, *words)
    assert f"{path}:1: the steps of an answer, each judged: train_prm.py --supervision" in said


def test_margins_and_rankings_of_a_file(tmp_path, monkeypatch):
    """The row's own margin taken times --margin; a ranking of which a rank is given twice."""
    pairs = [
        {"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No.", "margin": 0.5, "strength": 3}
        for n in NAMES
    ]
    path = write(tmp_path / "p.jsonl", pairs)
    _, _, log = call(monkeypatch, *from_file(tmp_path, "train_rm", path, "--loss", "margin"))
    # at equal scores the loss is log(1 + exp(margin))
    assert log["loss"][0] == pytest.approx(math.log1p(math.exp(0.5)), abs=0.05)
    for row in pairs:
        del row["margin"]
    path = write(tmp_path / "p.jsonl", pairs)
    _, _, log = call(
        monkeypatch,
        *from_file(
            tmp_path, "train_rm", path, "--loss", "margin", "--margin", 0.3, "--out", "strength"
        ),
    )
    assert log["loss"][0] == pytest.approx(math.log1p(math.exp(0.9)), abs=0.05)
    del pairs[7]["strength"]
    path = write(tmp_path / "p.jsonl", pairs)
    assert "needs 'strength', or 'margin', in every row" in complaint(
        monkeypatch, *from_file(tmp_path, "train_rm", path, "--loss", "margin", "--held_out", 0)
    )
    ranked = [
        {
            "prompt": f"{n}?",
            "chosen": f"best {c}",
            "rejected": f"{r} worst",
            "chosen_rank": c,
            "rejected_rank": r,
        }
        for n in NAMES
        for c, r in ((0, 1), (0, 2), (1, 2))
    ]
    for row in ranked:
        for side in ("chosen", "rejected"):
            row[side] = f"answer {row[f'{side}_rank']}"
    words, losses = ("--loss", "plackett_luce", "--out", "ranked", "--held_out", 0), []
    for rows in (ranked, ranked[::2] + ranked[1::2]):
        path = write(tmp_path / "r.jsonl", rows)
        _, _, log = call(monkeypatch, *from_file(tmp_path, "train_rm", path, *words))
        losses.append(log["loss"].tolist())
    assert losses[0] == pytest.approx(losses[1]) and len(losses[0]) == 2
    ranked[1]["rejected"] = "another"
    path = write(tmp_path / "r.jsonl", ranked)
    assert "two answers to 'Ada?' have the rank 2" in complaint(
        monkeypatch, *from_file(tmp_path, "train_rm", path, *words[:2])
    )


@pytest.mark.parametrize(
    "script, row, more",
    [
        ("train_sft", {"prompt": "Who?", "completion": "Ada."}, ()),
        ("train_rm", {"prompt": "Who?", "chosen": "Ada.", "rejected": "Bob."}, ()),
        ("train_dpo", {"prompt": "Who?", "chosen": "Ada.", "rejected": "Bob."}, ()),
        ("train_dpo", {"prompt": "Who?", "completion": "Ada.", "label": True}, ("--loss", "kto")),
    ],
)
def test_overfitting_one_row(script, row, more, tmp_path, monkeypatch, capsys):
    """Everybody's first check refused for want of a second row, or ending in a mean of nothing."""
    path = write(tmp_path / "one.jsonl", [row])
    words = from_file(tmp_path, script, path, "--held_out", 0, "--steps", 20, "--lr", 1e-2, *more)
    _, _, log = call(monkeypatch, *words)
    assert log["loss"][-1] < 0.8 * log["loss"][0] and all(map(math.isfinite, log["loss"]))
    assert "nan" not in capsys.readouterr().out
    said = complaint(monkeypatch, *from_file(tmp_path, script, path, *more))
    assert "only one conversation" in said and "--held_out 0 trains on all there is" in said


def test_evaluation_on_problems(tmp_path, monkeypatch, capsys):
    """A reward model asked for where answers are right or wrong; questions of another world."""
    rows = [
        {"question": f"What is {a} and {b}?", "answer": f"#### {a + b}"}
        for a in range(1, 9)
        for b in range(1, 5)
    ]

    def evaluate(path):
        words = ("--prompts", 32, "--device", "cpu", "--max_new_tokens", 16)
        call(monkeypatch, "evaluate", tmp_path / "own", "--data", path, *words)

    path = write(tmp_path / "p.jsonl", rows)
    call(monkeypatch, *from_file(tmp_path, "train_sft", path, "--batch_size", 8))
    evaluate(path)
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "own/results.json").read_text())
    figures = results["models"]["sft"]
    assert results["data"] == path and results["prompts"] == 32
    assert {"accuracy", "greedy", "pass@8", "majority@8"} <= set(figures), sorted(figures)
    assert f"{path}: 32 problems of 32 rows" in out and "pass@8" in out and "majority@8" in out
    # an untrained model is never right, one that has learned an answer by heart is
    one = write(tmp_path / "one.jsonl", rows[:1] * 4)
    call(
        monkeypatch,
        *from_file(
            tmp_path,
            "train_sft",
            one,
            "--steps",
            60,
            "--lr",
            1e-2,
            "--held_out",
            0,
            "--batch_size",
            4,
        ),
    )
    evaluate(one)
    learned = json.loads((tmp_path / "own/results.json").read_text())["models"]["sft"]
    assert learned["greedy"] == 1 > figures["greedy"]


@pytest.mark.skipif(
    not HH.exists() or "TIKTOKEN_CACHE_DIR" not in os.environ,
    reason="needs the real data and tiktoken's gpt2 files",
)
def test_no_held_out_answer_of_real_dialogues_is_trained_on():
    """A dialogue stands in the file several times, each longer: held-out answers inside the longer
    ones; or held out by one script and trained on by the next."""
    tok, path = Tokenizer("gpt2"), str(HH)
    loaded = {
        "sft": files.load_conversations(path, tok, 512),
        "pairs": files.load_pairs(path, tok, 512),
        "rl": files.load_prompts(path, tok, 448),
    }
    parts = {name: files.split(*both, 0.1, seed=0) for name, both in loaded.items()}
    subjects = {
        name: dict(
            zip(
                ("train", "held"),
                (
                    {s.conversation for s in files.split(report.kept, report, 0.1, seed=0)[i]}
                    for i in (0, 1)
                ),
                strict=True,
            )
        )
        for name, (_, report) in loaded.items()
    }
    everything = {
        side: set().union(*(subjects[name][side] for name in subjects))
        for side in ("train", "held")
    }
    assert len(everything["held"]) > 100 and not everything["train"] & everything["held"]
    for name, (items, report) in loaded.items():
        assert 0.05 < len(parts[name][1]) / len(items) < 0.15
        assert (
            report.rows
            == 1800
            == len(items) + sum(n for what, n in report.items() if what.startswith("dropped"))
        )

    # by the words alone: a long answer of a held-out row, with what was asked before it
    def said(ids):
        return set(tok.decode(ids).split("<|user|>")[1:])

    held = Counter(t for ids, _ in parts["sft"][1] for t in said(ids) if len(t) > 80)
    trained = Counter(t for ids, _ in parts["sft"][0] for t in said(ids) if len(t) > 80)
    trained += Counter(
        t for p in parts["pairs"][0] for t in said(p.prompt + p.chosen) if len(t) > 80
    )
    assert len(held) > 100 and not set(held) & set(trained)


def test_a_shuffled_file_makes_the_same_steps(tmp_path, monkeypatch):
    """Neighbours alone count as one prompt: 9 steps in place of 4."""
    pairs = [
        {"prompt": f"{name}?", "chosen": f"Yes {i}.", "rejected": f"No {j}."}
        for name in NAMES[:6]
        for i in range(2)
        for j in range(2)
    ]
    steps = []
    for rows in (pairs, pairs[::5] + [p for i, p in enumerate(pairs) if i % 5]):
        path = write(tmp_path / "p.jsonl", rows)
        words = [w for w in from_file(tmp_path, "train_rm", path, "--held_out", 0)]
        at = words.index("--steps")
        del words[at : at + 2]
        call(monkeypatch, *words)
        steps.append(len(read_log(tmp_path / "own/rm")))
    assert steps == [3, 3]


def test_cases_that_people_have(tmp_path):
    """The collection that came with the question: each file is read, or refused in a sentence."""
    folder = pathlib.Path(HH).parent.parent / "cases"
    if not folder.exists():
        pytest.skip("no cases beside the repository")
    tok, refused = Tokenizer("sums"), set()
    for path in sorted(folder.glob("*.json*")) + sorted(folder.glob("*.csv")):
        for load in (files.load_conversations, files.load_pairs):
            try:
                load(str(path), tok, 512)
                break
            except files.InputError as e:
                assert "\n" not in str(e) and str(path) in str(e)
        else:
            refused.add(path.stem)
    assert refused == {
        "array",
        "table",
        "shp",
        "helpsteer2",
        "implicit",
        "strength_negative",
        "strength_text",
    }
