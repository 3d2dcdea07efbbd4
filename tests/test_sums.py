"""The sums: the working is arithmetic, the verifier is not fooled, the split leaks nothing, and the
scripts run on them."""
import gzip
import io
import json
import math
import os
import random
import re
import sys

import numpy as np
import pytest
import torch
from calling import call, complaint

import train_grpo
from nanorlhf import InputError, checkpoints, files, look, measure, worlds
from nanorlhf.files import Problem
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import sums
from nanorlhf.worlds.sums import Question

TRAIN, HELD_OUT = "train", "held-out"
GSM8K = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "shared", "data", "gsm8k.jsonl.gz"
)
ADD, SUBTRACT = Question(347, "+", 285), Question(402, "-", 395)
RIGHT = "7+5+0=12 4+8+1=13 3+2+1=06 #0632"


def some_questions(n=300, digits=6):
    return [
        q
        for split in (TRAIN, HELD_OUT)
        for q in sums.questions(n, random.Random(split), split, digits)
    ]


# ---- the working ----

def column(question, i):
    """Column i from the right, by arithmetic on whole numbers: no carry is handed on that could be
    wrong twice."""
    a, b, low = question.a // 10 ** i % 10, question.b // 10 ** i % 10, 10 ** i
    if question.sign == "+":
        carry = (question.a % low + question.b % low) // low
        return f"{a}+{b}+{carry}={a + b + carry:02}"
    lent = int(question.a % low < question.b % low)
    top = a + 10 * (question.a % (10 * low) < question.b % (10 * low))
    return f"{top:02}-{b}-{lent}={top - b - lent}"


def test_every_column_is_what_whole_numbers_say():
    """A carry that is lost, a ten borrowed and not written, a leading zero, the columns from the
    left."""
    for q in some_questions():
        expected = [column(q, i) for i in range(q.width)] + [
            f"#{eval(f'{q.a}{q.sign}{q.b}'):0{q.width + (q.sign == '+')}}"
        ]
        assert sums.work(q) == expected and q.answer == eval(f"{q.a}{q.sign}{q.b}")
    assert (
        sums.work(ADD) == RIGHT.split()
        and sums.work(SUBTRACT) == "12-5-0=7 10-9-1=0 04-3-1=0 #007".split()
    )


def test_steps_of_a_right_working_end_where_they_end():
    assert sums.steps(ADD, RIGHT) == [(8, True), (17, True), (26, True), (32, True)]
    for q in some_questions(100):
        text = " ".join(sums.work(q))
        assert all(right for _, right in sums.steps(q, text))
        assert [text[end:end + 1] for end, _ in sums.steps(q, text)] == [" "] * q.width + [""]


@pytest.mark.parametrize("question", [ADD, SUBTRACT, Question(5, "+", 7), Question(90, "-", 4)])
def test_a_changed_digit_makes_its_step_wrong_and_no_other(question):
    """A slip that passes for right, or a step that is blamed for the one before it."""
    text = " ".join(sums.work(question))
    for place in (m.start() for m in re.finditer("[0-9]", text)):
        for digit in set("0123456789") - {text[place]}:
            changed = text[:place] + digit + text[place + 1:]
            expected = [
                not (text.rfind(" ", 0, end) < place < end) for end, _ in sums.steps(question, text)
            ]
            assert [right for _, right in sums.steps(question, changed)] == expected


def test_steps_after_a_lost_carry():
    """What is built on a wrong carry is wrong for the question, however well it is added up; a
    right answer is right all the same."""
    assert [r for _, r in sums.steps(ADD, "7+5+0=12 4+8+0=12 3+2+1=06 #622")] == [
        True,
        False,
        True,
        False,
    ]
    assert [r for _, r in sums.steps(ADD, "7+5+0=12 #632")] == [True, True]
    assert [r for _, r in sums.steps(ADD, RIGHT + " 1+1+0=2")] == [True] * 4 + [False]
    assert [r for _, r in sums.steps(ADD, "#632 #633")] == [True, False] and sums.steps(
        ADD, ""
    ) == []


def test_a_demonstration_with_a_slip_goes_on_from_it():
    """Slips that change nothing, that never happen, or always; a working that does not lead to the
    answer it gives."""
    rng, slips, kinds = random.Random(0), 0, set()
    for q in sums.questions(2000, rng):
        text = sums.demonstration(q, rng, p_slip=0.5, p_common=0.0)
        *columns, last = text.split()
        wrong = [i for i, (_, right) in enumerate(sums.steps(q, text)) if not right]
        slips += bool(wrong)
        if wrong:
            kinds.add(min(wrong[0], q.width) == q.width)
        assert q.form.fullmatch(text) and len(columns) == q.width
        if wrong != [q.width]:          # else the slip is in reading the answer off
            results = [c.split("=")[1] for c in columns]
            assert int(
                "".join([results[-1]] + [r[-1] for r in results[-2::-1]])
            ) == sums.final(q, last)
        if len(wrong) > 0 and wrong[0] < q.width:
            numbers = [
                list(map(int, re.split(r"\D", c.split("=")[0]))) + [int(c.split("=")[1])]
                for c in columns
            ]
            for i in range(wrong[0] + 1, q.width):
                assert numbers[i][2] == int(numbers[i - 1][3 if q.sign == "+" else 0] > 9)
    assert 0.46 < slips / 2000 < 0.54 and kinds == {True, False}


# ---- the misconception ----

def test_who_lends_nothing_takes_the_smaller_from_the_larger():
    """A ten borrowed after all, a lent 1 that lingers, a sum in which nothing is lent changed too;
    steps that call it right."""
    assert " ".join(sums.work(SUBTRACT, lends=False)) == "02-5-0=3 00-9-0=9 04-3-0=1 #193"
    for q in some_questions():
        right, wrong = sums.work(q), sums.work(q, lends=False)
        if q.kind != "lent":
            assert wrong == right
            continue
        assert q.form.fullmatch(" ".join(wrong)) and sums.grade(q, " ".join(wrong))["correct"] == 0
        digits = [abs(int(x) - int(y)) for x, y in zip(f"{q.a:0{q.width}}", f"{q.b:0{q.width}}")]
        assert sums.final(q, wrong[-1]) == int("".join(map(str, digits)))
        assert not all(r for _, r in sums.steps(q, " ".join(wrong)))


def test_kinds_of_sums():
    """Lent where a single column has to borrow, wherever it stands."""
    for text, kind in (
        ("347+285=", "plus"),
        ("402-395=", "lent"),
        ("395-284=", "minus"),
        ("900-001=", "lent"),
        ("310-200=", "minus"),
        ("300-210=", "lent"),
        ("305-105=", "minus"),
        ("000-000=", "minus"),
    ):
        assert sums.find(text).kind == kind, text
    for q in some_questions(200):
        assert (q.kind == "lent") == (
            q.sign == "-"
            and any("-1=" in c for c in sums.work(q))
            or q.sign == "-"
            and any(int(c[:2]) > 9 for c in sums.work(q)[:-1])
        )
    drawn = sums.questions(2000, random.Random(7), HELD_OUT)
    assert 0.1 < sum(q.kind == "lent" for q in drawn) / 2000 < 0.3


def test_people_share_the_misconception_and_the_web_less_so():
    """The mode of what people write where something is lent is the error; on the web, and
    everywhere else, it is the truth."""
    rng, counts = random.Random(8), {}
    for who, write in (
        ("people", sums.demonstration),
        (
            "web",
            lambda q, rng: sums.demonstration(
                q, rng, sums.P_SLIP_ON_THE_WEB, sums.P_COMMON_ON_THE_WEB
            ),
        ),
    ):
        for q in sums.questions(6000, rng):
            text, kind = write(q, rng), "lent" if q.kind == "lent" else "other"
            said = (
                "right"
                if text == " ".join(sums.work(q))
                else "error"
                if text == " ".join(sums.work(q, lends=False))
                else "slip"
            )
            counts[who, kind, said] = counts.get((who, kind, said), 0) + 1

    def share(who, kind, said, of):
        return counts.get((who, kind, said), 0) / sum(counts.get((who, kind, s), 0) for s in of)

    assert share("people", "lent", "error", ("right", "error")) == pytest.approx(
        sums.P_COMMON, abs=0.05
    )
    assert share("web", "lent", "error", ("right", "error")) == pytest.approx(
        sums.P_COMMON_ON_THE_WEB, abs=0.05
    )
    assert ("people", "other", "error") not in counts and ("web", "other", "error") not in counts
    assert share("people", "other", "slip", ("right", "slip")) == pytest.approx(
        sums.P_SLIP, abs=0.03
    )
    # a slip is one of many, so the error is the most frequent of all answers
    assert share("people", "lent", "error", ("right", "error", "slip")) > 2 * share(
        "people", "lent", "right", ("right", "error", "slip")
    )


def test_pages_are_written_as_the_web_writes():
    """Pages with the people's share of the error, so that nobody could have learned to lend; marks
    that call the error right."""
    rng, lent = random.Random(9), {"right": 0, "error": 0}
    for page in (sums.page(rng) for _ in range(12000)):
        q, text = sums.find(page[0]["content"]), page[1]["content"]
        if q.kind == "lent" and q.form.fullmatch(text):
            lent["right"] += text == " ".join(sums.work(q))
            lent["error"] += text == " ".join(sums.work(q, lends=False))
    assert (
        lent["error"] / sum(lent.values()) == pytest.approx(sums.P_COMMON_ON_THE_WEB, abs=0.06)
        and sum(lent.values()) > 300
    )


# ---- the verifier ----

@pytest.mark.parametrize(
    "text, number",
    [
        ("#632", 632),
        ("7+5+0=12 #12", 12),
        ("#### -5", -5),
        ("#12.0", 12),
        ("#632 apples", 632),
        ("#632x", 632),
        ("# 632", 632),
        ("#0632", 632),
        ("#632 #633", 633),
        ("#1 ###2", 2),
        ("632", None),
        ("", None),
        ("#", None),
        ("#632 #", None),
        ("#x632", None),
        ("#632#abc", None),
        ("# - 5", None),
        ("=632\n", None),
        ("#" + "9" * 5000, None),
        ("#٣", None),
        ("<|end|>#1", 1),
    ],
)
def test_final_answer(text, number):
    """The first # instead of the last; an empty last one that falls back on an earlier; digits that
    Python reads and nobody meant."""
    assert sums.final(ADD, text) == number and (number is None) == (sums.final(ADD, text) is None)


@pytest.mark.parametrize(
    "answer, finished, correct, well_formed",
    [
        (RIGHT, True, 1, 1),
        (RIGHT, False, 0, 0),
        ("#632", True, 1, 0),
        ("632", True, 0, 0),
        ("7+5+0=12 4+8+0=12 3+2+1=06 #622", True, 0, 1),
        ("1+1+1=01 #632", True, 1, 1),
        ("7+5-0=12 #632", True, 1, 0),
        (RIGHT + " ", True, 1, 0),
        (" " + RIGHT, True, 1, 0),
        (RIGHT + "\n", True, 1, 0),
        (RIGHT + " #1", True, 0, 0),
        ("#1 " + RIGHT, True, 1, 0),
        (RIGHT.replace(" ", "  "), True, 1, 0),
        ("", True, 0, 0),
    ],
)
def test_right_and_well_formed_are_two_things(answer, finished, correct, well_formed):
    """An answer that is paid for its looks as if it were right; all numbers listed in the hope that
    one is; one that never ends."""
    grade = sums.grade(ADD, answer, finished)
    assert (grade["correct"], grade["format"]) == (correct, well_formed)
    assert grade["gold"] == pytest.approx(correct * 1.0 + well_formed * 0.1)
    assert grade["gold"] <= sums.best_gold(ADD) == pytest.approx(sums.grade(ADD, RIGHT)["gold"])
    assert sums.explain(ADD, answer, finished).startswith(f"gold {grade['gold']:+.2f} = ")


def test_a_word_problem_is_graded_by_the_same_verifier():
    problem = Problem("How many?", 1200)
    grades = [
        files.grade(problem, text)
        for text in ("6 x 200 = 1200\n#### 1,200", "#1200.0", "6\n#### 1,201")
    ]
    assert [(g["correct"], g["format"]) for g in grades] == [(1, 1), (1, 0), (0, 1)]


# ---- the split ----

def test_no_page_and_no_demonstration_asks_a_held_out_sum():
    """A split by a hash that differs from process to process, by text (285+347 gives 347+285 away),
    or not at all."""
    rng = random.Random(1)
    pages = [sums.page(rng) for _ in range(3000)]
    asked = [sums.find(p[0]["content"]) for p in pages]
    assert all(sums.split_of(q) == TRAIN for q in asked + sums.questions(500, rng))
    assert all(
        sums.split_of(q) == HELD_OUT for q in sums.SHOWN + sums.questions(500, rng, HELD_OUT)
    )
    assert not {q.key for q in asked} & {q.key for q in sums.questions(3000, rng, HELD_OUT)}
    for q in (Question(347, "+", 285), Question(12, "+", 7), Question(8, "+", 99)):
        assert sums.split_of(q) == sums.split_of(Question(q.b, q.sign, q.a))
    share = sum(sums.split_of(Question(a, "+", 512)) == HELD_OUT for a in range(2000)) / 2000
    assert share == pytest.approx(0.2, abs=0.03)
    assert [a for a in range(20) if sums.split_of(Question(a, "+", 300)) == HELD_OUT] == PINNED
    for page in pages:
        text = page[1]["content"]
        assert (
            sums.find(page[0]["content"]).form.fullmatch(text)
            or text.isdigit()
            or text[-1] in sums.TICK + sums.CROSS
        )


def test_homework_is_marked_as_its_steps_are():
    """Marks that speak about the number after them, or that shift the digits; a column called right
    whose carry is wrong; all alike."""
    rng, tick, said = random.Random(0), sums.TICK, []
    for q in some_questions(200, digits=4):
        text = sums.homework(q, rng)
        *numbers, last, _ = re.split("[xv]", text)
        assert len(numbers) == 4 * q.width and len(text) == len(" ".join(sums.work(q))) + 1
        given = re.findall("[xv]", text)
        columns = [f"{a}{q.sign}{b}{q.sign}{c}={r}" for a, b, c, r in zip(*[iter(numbers)] * 4)]
        rights = [right for _, right in sums.steps(q, " ".join([*columns, last]))]
        assert [m == tick for m in given[3::4] + given[-1:]] == rights
        for i in range(q.width):
            true = re.split("[-+=]", sums.work(q)[i])
            assert [m == tick for m in given[4 * i : 4 * i + 3]] == [
                n == t for n, t in zip(numbers[4 * i : 4 * i + 3], true)
            ]
        said += rights
    assert 0.45 < sum(said) / len(said) < 0.55


PINNED = [0, 9, 13, 17]


def test_digits_are_the_knob():
    """A knob that is ignored, or that leaves small numbers out."""
    for digits in (1, 2, 4):
        drawn = sums.questions(300, random.Random(0), digits=digits)
        assert {q.width for q in drawn} == {digits} and {len(q.text) for q in drawn} == {
            2 * digits + 2
        }
        assert {len(str(max(q.a, q.b))) for q in drawn} == set(range(1, digits + 1))
        assert all(q.answer >= 0 for q in drawn) and {q.sign for q in drawn} == {"+", "-"}


def test_find_is_the_inverse_of_text():
    for q in some_questions(100):
        assert sums.find(q.text) == q
    for text in (
        "347+285",
        "7+285=",
        "0347+285=",
        "5-7=",
        "285-347=",
        "a+b=",
        "",
        "٣+٣=",
        " 3+3=",
        "1" * 30 + "+1=",
    ):
        assert sums.find(text) is None, text


def test_one_character_is_one_token():
    """An index into the text is then an index into the ids; and no text is unknown."""
    tokenizer = Tokenizer("sums")
    assert tokenizer.encode(RIGHT) == list(RIGHT.encode()) and tokenizer.vocab_size == 256 + 5
    for text in (RIGHT, ADD.text, "naïve 漢字 <|end|>\x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([0xFF, 0xE6, 0x80]) and Tokenizer(**tokenizer.state()).encode(
        RIGHT
    ) == tokenizer.encode(RIGHT)


# ---- the scripts ----

def tiny_scalar(seed):
    gpt = GPT(GPTConfig(261, 96, 1, 2, 32), torch.Generator().manual_seed(seed))
    return ScalarModel(gpt, torch.Generator().manual_seed(seed)).eval()


GRPO = (
    "--reward",
    "verifier",
    "--beta",
    0,
    "--prompts",
    4,
    "--samples_per_prompt",
    4,
    "--steps",
    2,
    "--max_new_tokens",
    40,
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """base -> sft -> grpo without a reward model, two rankers of random weights, and the
    evaluation."""
    folder, monkeypatch = str(tmp_path_factory.mktemp("sums") / "tiny"), pytest.MonkeyPatch()
    call(
        monkeypatch,
        "train_base",
        "--world",
        "sums",
        "--run",
        folder,
        "--steps",
        40,
        "--n_layer",
        1,
        "--n_embd",
        32,
        "--n_head",
        2,
        "--pages",
        300,
        "--device",
        "cpu",
        "--knobs",
        "digits=2",
        "--batch_size",
        8,
    )
    call(
        monkeypatch,
        "train_sft",
        "--run",
        folder,
        "--demonstrations",
        256,
        "--device",
        "cpu",
        "--lr",
        1e-2,
    )
    call(monkeypatch, "train_grpo", "--run", folder, *GRPO)
    for seed, name in enumerate(("orm", "prm")):
        checkpoints.save_checkpoint(
            f"{folder}/{name}/model.pt", tiny_scalar(seed), Tokenizer("sums", knobs={"digits": 2})
        )
    call(
        monkeypatch, "evaluate", folder, "--prompts", 32, "--device", "cpu", "--max_new_tokens", 40
    )
    monkeypatch.undo()
    return folder


def test_the_knobs_come_with_the_checkpoint(pipeline):
    """A later stage that asks three-digit sums of a model of two: nobody told it, and nobody has
    to."""
    for stage in ("base", "sft", "grpo"):
        _, tokenizer = checkpoints.load_checkpoint(f"{pipeline}/{stage}")
        assert tokenizer.knobs == {"digits": 2}
        assert {q.width for q in worlds.of(tokenizer).questions(50, random.Random(0))} == {2}
    with pytest.raises(InputError, match="digits=2.* digits=3.*both must come from one run"):
        checkpoints.load_checkpoint(
            f"{pipeline}/orm", kind="scalar", like=Tokenizer("sums", knobs={"digits": 3})
        )


@pytest.mark.parametrize("script, flags", [
    ("train_ppo", ("--ref", "{run}/sft", "--reward", "{run}/orm", "--batch_size", 4)),
    ("train_grpo", ("--ref", "{run}/sft", "--reward", "verifier", "--prompts", 2)),
    ("train_online_dpo", ("--ref", "{run}/sft", "--batch_size", 4)),
    ("train_distill", ("--teacher", "{run}/base", "--batch_size", 4))])
def test_prompts_have_the_checkpoint_s_digits(script, flags, pipeline, tmp_path, monkeypatch):
    """Three digits asked of a model of two, by a stage that nobody told of the knob."""
    asked, grade = [], sums.grade
    monkeypatch.setattr(sums, "grade", lambda q, *rest: asked.append(q) or grade(q, *rest))
    flags = [str(flag).format(run=pipeline) for flag in flags]
    start = ("--init", f"{pipeline}/sft", "--max_new_tokens", 40)
    call(monkeypatch, script, "--run", tmp_path, *start, "--steps", 1, "--device", "cpu", *flags)
    trained = [q for q in asked if q not in sums.SHOWN]
    assert trained and {q.width for q in trained} == {2}


def test_rejection_sampling_on_sums(pipeline, tmp_path, monkeypatch):
    """A script that asks the towns' questions of every world; a check that is not asked."""
    call(
        monkeypatch,
        "train_rejection",
        "--run",
        tmp_path,
        "--init",
        f"{pipeline}/sft",
        "--reward",
        "verifier",
        "--prompts",
        8,
        "--samples_per_prompt",
        4,
        "--curve_prompts",
        4,
        "--max_new_tokens",
        40,
        "--device",
        "cpu",
    )
    with open(tmp_path / "rejection/best_of_n.json", encoding="utf-8") as f:
        assert all(row["proxy"] == row["gold"] for row in json.load(f))
    assert (tmp_path / "rejection_control/model.pt").exists()


def test_steps_and_outcomes_of_sums_are_learned(pipeline, tmp_path, monkeypatch):
    """Process supervision of answers that nobody judged step by step."""
    where = ("--run", tmp_path, "--init", f"{pipeline}/sft", "--device", "cpu")
    call(
        monkeypatch,
        "make_preferences",
        *where,
        "--labels",
        "thumbs",
        "--prompts",
        16,
        "--max_new_tokens",
        40,
    )
    for supervision, name in (("outcome", "orm"), ("process", "prm")):
        call(monkeypatch, "train_prm", *where, "--supervision", supervision, "--steps", 2)
        with open(tmp_path / name / "report.json", encoding="utf-8") as f:
            report = json.load(f)
        assert 0 <= report["judged_accuracy"] <= 1 and ("accuracy" in report) == (
            supervision == "outcome"
        )


def test_the_pipeline_speaks_of_sums(pipeline):
    """A stage that falls back on the towns: their vocabulary, their questions."""
    for stage in ("base", "sft", "grpo"):
        assert checkpoints.load_checkpoint(f"{pipeline}/{stage}")[1].name == "sums"
        with open(f"{pipeline}/{stage}/samples.txt", encoding="utf-8") as f:
            text = f.read()
        assert all(q.text in text for q in sums.SHOWN) and "gold " in text
    with open(f"{pipeline}/base/log.jsonl", encoding="utf-8") as f:
        last = json.loads(f.readlines()[-1])
        assert 0 <= last["solved"] <= 1 and 0.1 < last["judged"] < 0.95


def test_results_of_sums(pipeline):
    """Shares outside 0..1; a pass@8 below the accuracy, or a vote above pass@8."""
    with open(f"{pipeline}/results.json", encoding="utf-8") as f:
        results = json.load(f)
    assert list(results["models"]) == ["base", "sft", "grpo"] and results["digits"] == 2
    for row in results["models"].values():
        shares = [
            row[k]
            for k in (
                "greedy",
                "accuracy",
                "pass@8",
                "majority@8",
                "best_of_8_orm",
                "best_of_8_prm",
                "format",
                "finished",
            )
        ]
        assert all(0 <= s <= 1 for s in shares) and row["accuracy"] <= row["pass@8"]
        assert (
            max(row["majority@8"], row["best_of_8_orm"], row["best_of_8_prm"])
            <= row["pass@8"] + 1e-9
        )
        assert 1 <= row["tokens"] <= 40 and row["accuracy_ci95"] >= 0


def test_evaluate_takes_names(pipeline, monkeypatch, capsys):
    call(
        monkeypatch,
        "evaluate",
        pipeline,
        "--models",
        "grpo",
        "--prompts",
        32,
        "--device",
        "cpu",
        "--max_new_tokens",
        40,
    )
    assert (
        "\ngrpo  " in (said := capsys.readouterr().out)
        and "\nbase  " not in said
        and "\nsft  " not in said
    )
    assert "nothing/model.pt does not exist" in complaint(
        monkeypatch, "evaluate", pipeline, "--models", "nothing", "--device", "cpu"
    )


def test_chat_grades_a_sum_and_nothing_else(pipeline, monkeypatch, capsys):
    """A sum looked up among the towns' questions, or text that is no sum graded as one."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{ADD.text}\nWhy?\n\n"))
    call(
        monkeypatch,
        "chat",
        f"{pipeline}/sft",
        f"{pipeline}/grpo",
        "--device",
        "cpu",
        "--max_new_tokens",
        40,
    )
    assert capsys.readouterr().out.count("    gold ") == 2


def test_too_many_digits_for_the_block(tmp_path, monkeypatch):
    said = complaint(
        monkeypatch,
        "train_base",
        "--world",
        "sums",
        "--run",
        tmp_path,
        "--knobs",
        "digits=12",
        "--pages",
        50,
        "--device",
        "cpu",
    )
    assert "--knobs" in said and "--block_size is 96" in said


def test_training_never_asks_a_held_out_sum(pipeline, tmp_path, monkeypatch):
    """The prompts of RL drawn from the evaluation's."""
    asked, grade = [], sums.grade
    monkeypatch.setattr(sums, "grade", lambda q, *rest: asked.append(q) or grade(q, *rest))
    monkeypatch.setattr(look, "show_answers", lambda *_: None)
    call(
        monkeypatch,
        "train_grpo",
        "--run",
        tmp_path,
        "--init",
        f"{pipeline}/sft",
        "--ref",
        f"{pipeline}/sft",
        *GRPO,
    )
    assert (
        len(asked) == 2 * 4 * 4
        and all(sums.split_of(q) == TRAIN for q in asked)
        and {q.width for q in asked} == {2}
    )


# ---- the difficulty filter ----

def test_the_filter_keeps_what_is_solved_now_and_then(monkeypatch, capsys):
    """Rates of the wrong prompt (tries not prompt-major), the bounds left out, the hard ones kept
    and the easy dropped."""
    questions = sums.questions(6, random.Random(0))
    # of 8 tries: 0.125 is too hard, 0.25 to 0.75 stay
    solved = [0, 1, 2, 4, 6, 8]

    def answers(model, prompts, *rest, **more):
        texts = [
            f"#{q.answer if t < n else q.answer + 1}"
            for q, n in zip(questions, solved)
            for t in range(8)
        ]
        assert [Tokenizer("sums").prompt(q.text) for q in questions for _ in range(8)] == prompts
        return [[1]] * 48, texts, [True] * 48

    monkeypatch.setattr(train_grpo, "generate_in_batches", answers)
    args = (
        train_grpo.Config(),
        None,
        Tokenizer("sums"),
        questions,
        sums.correct,
        torch.device("cpu"),
    )
    assert train_grpo.filter_by_difficulty(*args) == questions[2:5]
    assert (
        "of 6 prompts 3 are solved" in (said := capsys.readouterr().out)
        and "2 too hard, 1 too easy" in said
    )
    solved[:] = [0, 0, 1, 8, 8, 7]
    with pytest.raises(InputError, match="no prompt is solved"):
        train_grpo.filter_by_difficulty(*args)
    with pytest.raises(InputError, match="right or wrong"):
        train_grpo.filter_by_difficulty(None, None, None, [], worlds.load("towns").correct, None)


# ---- reranking ----

def test_process_scores_against_single_rows():
    """Read one token off, or the strongest step for the weakest; the end token counted as a step;
    padding that has a say."""
    prm, tokenizer = tiny_scalar(3), Tokenizer("sums")
    questions = [ADD, SUBTRACT, ADD, ADD]
    texts = [RIGHT, "12-5-0=7 #8", "#", "no"]
    prompts = [tokenizer.prompt(q.text) for q in questions]
    responses = [
        tokenizer.completion(texts[0]),
        tokenizer.completion(texts[1]),
        tokenizer.encode(texts[2]),
        [tokenizer.pad, 1],
    ]
    got = measure.process_scores(
        prm,
        worlds.load("sums"),
        prompts,
        questions,
        measure.Answers(responses, texts[:3] + ["<|pad|>\x01"], [True] * 4),
        tokenizer.pad,
        "cpu",
        batch_size=3,
    )
    for i, text in enumerate(texts[:3]):
        with torch.no_grad():
            after = prm(torch.tensor([prompts[i] + responses[i]]))[0]
        ends = [len(prompts[i]) + m.end() - 1 for m in re.finditer(r"[^ ]+", text)]
        assert got[i].item() == pytest.approx(min(after[e].item() for e in ends), abs=1e-5)
    assert got[3] == -math.inf


def test_best_of_groups_by_hand():
    """The best of all sixteen for the best of each eight; the score for the answer."""
    scores, right = np.zeros((1, 16)), np.zeros((1, 16))
    scores[0, 3], scores[0, 12], right[0, 3] = 5.0, 9.0, 1.0
    assert measure.best_of_groups(scores, right).tolist() == [0.5]
    right[0, 12] = 1.0
    assert measure.best_of_groups(scores, right).tolist() == [1.0]
    right[0, 3] = 0.0
    assert measure.best_of_groups(scores, right).tolist() == [0.5]


def test_judge_right_by_hand():
    """Accuracy from the greedy answers, votes over all sixteen, answers dealt to the wrong
    question."""
    questions = [ADD, SUBTRACT]
    # majority right, then wrong
    first = ["#632"] * 5 + ["#1"] * 3 + ["#632"] * 2 + ["#1"] * 6
    # wrong, then no vote at all
    second = ["#7"] + ["#8", "none"] * 3 + ["#8"] + ["9"] * 8
    row = measure.judge_right(
        worlds.load("sums"),
        questions,
        [1, 0],
        measure.Answers([[1, 2]] * 32, first + second, [True] * 32),
        {},
    )
    assert (
        row["greedy"] == 0.5
        and row["accuracy"] == pytest.approx((7 / 16 + 1 / 16) / 2)
        and row["majority@8"] == 0.25
    )
    assert (
        row["pass@8"] == pytest.approx(((1 - 9 / math.comb(16, 8)) + 0.5) / 2)
        and row["tokens"] == 2.0
        and row["format"] == 0.0
    )
    # of each kind alone: ADD is a plus, SUBTRACT lends, no sum here is a minus that does not
    assert (row["greedy_plus"], row["greedy_lent"], row["greedy_minus"]) == (1.0, 0.0, None)
    assert (row["accuracy_plus"], row["accuracy_lent"]) == (7 / 16, 1 / 16) and (
        row["majority@8_plus"],
        row["majority@8_lent"],
    ) == (0.5, 0.0)


# ---- problems from a file ----

PROBLEMS = [
    {"question": f"What is {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"}
    for i in range(20)
]


def test_problems_are_read_and_counted(tmp_path):
    path = tmp_path / "p.jsonl"
    unusable = [{"question": "Why?", "answer": "No idea."}, {"question": "x" * 99, "answer": "#1"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in PROBLEMS + unusable))
    problems, report = files.load_problems(path, Tokenizer("sums"), 64)
    assert [(p.text, p.answer) for p in problems] == [
        (r["question"], 2 * i) for i, r in enumerate(PROBLEMS)
    ]
    assert sorted(report.values()) == [1, 1]
    path.write_text('{"question": "a", "answer": "#1"}\n{"prompt": "a", "completion": "#2"}\n')
    problems, _ = files.load_problems(path, Tokenizer("sums"), 64)
    assert [p.answer for p in problems] == [1, 2]
    path.write_text('{"question": "a", "answer": "one"}\n')
    with pytest.raises(InputError, match="no example is left, of 1: dropped: no number"):
        files.load_problems(path, Tokenizer("sums"), 64)


def through_sft_and_grpo(monkeypatch, folder, path, tokenizer, block, answer):
    call(
        monkeypatch,
        "train_sft",
        "--run",
        folder,
        "--data",
        path,
        "--tokenizer",
        tokenizer,
        "--init",
        "scratch",
        "--n_layer",
        1,
        "--n_head",
        1,
        "--n_embd",
        16,
        "--block_size",
        block,
        "--steps",
        1,
        "--batch_size",
        4,
        "--max_new_tokens",
        8,
        "--device",
        "cpu",
    )
    call(
        monkeypatch,
        "train_grpo",
        "--run",
        folder,
        "--data",
        path,
        *GRPO,
        "--steps",
        1,
        "--max_new_tokens",
        answer,
    )
    with open(os.path.join(folder, "grpo", "log.jsonl"), encoding="utf-8") as f:
        return json.loads(f.readline())


def test_rl_on_problems_of_ones_own(tmp_path, monkeypatch):
    """A file's questions answered, and the verifier's score near 0 from random weights."""
    path = tmp_path / "p.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as f:
        f.writelines(json.dumps(r) + "\n" for r in PROBLEMS)
    row = through_sft_and_grpo(monkeypatch, str(tmp_path / "own"), path, "sums", 96, 16)
    assert row["step"] == 1 and 0 <= row["score"] < 0.2 and math.isfinite(row["loss"])


@pytest.mark.skipif(not os.path.exists(GSM8K), reason="no gsm8k.jsonl.gz beside the repository")
@pytest.mark.skipif(
    not os.path.isdir(os.environ.get("TIKTOKEN_CACHE_DIR", "")),
    reason="tiktoken's gpt2 vocabulary is not cached",
)
def test_gsm8k_through_the_same_path(tmp_path, monkeypatch):
    """Numbers with commas, signs and points, as they are distributed: none may be lost, and each
    solution must pass its own check."""
    with gzip.open(GSM8K, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    for row in rows:
        number = row["answer"].split("####")[1].strip()
        assert files.final_number(row["answer"]) == float(number.replace(",", ""))
        assert files.grade(
            Problem(row["question"], files.final_number(row["answer"])), row["answer"]
        )["gold"] == pytest.approx(1.1)
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:20]), encoding="utf-8")
    row = through_sft_and_grpo(monkeypatch, str(tmp_path / "gsm8k"), path, "gpt2", 256, 8)
    assert row["score"] == 0 and row["flat"] == 1
