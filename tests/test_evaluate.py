import numpy as np
import pytest
import torch

from evaluate import (
    Answers,
    at_best,
    believed_gold,
    bootstrap,
    by_temperature,
    judge,
    kl_per_answer,
    print_table,
)
from nanorlhf import worlds
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.stats import average
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import towns

CPU = torch.device("cpu")
WORLD = worlds.load("towns")


def rng():
    return np.random.default_rng(0)


def tiny(seed):
    model = GPT(GPTConfig(13, 24, 1, 2, 16), torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(8)
    return model


# ---- intervals ----

def test_bootstrap_of_a_constant_has_no_width():
    """Clusters of unequal size weighed as if equal would still pass; a sum in place of the mean
    would not."""
    assert bootstrap(np.full(7, 0.3), ["a", "a", "a", "b", "c", "c", "d"], rng()) == pytest.approx(
        0, abs=1e-12
    )


def test_bootstrap_of_independent_values_is_the_usual_interval():
    """Half the width, not all of it: 1.96 standard errors."""
    values = np.random.default_rng(1).normal(size=400)
    half = bootstrap(values, list(range(400)), rng())
    assert half == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_repeats_of_a_pair_are_no_new_evidence():
    """Resampling prompts instead of pairs: four copies of each value would halve the interval."""
    values, pairs = (
        np.random.default_rng(2).normal(size=60),
        [("Marlow", (str(i),)) for i in range(60)],
    )
    once = bootstrap(values, pairs, rng())
    clustered = bootstrap(np.repeat(values, 4), [p for p in pairs for _ in range(4)], rng())
    naive = bootstrap(np.repeat(values, 4), list(range(240)), rng())
    assert clustered == pytest.approx(once, rel=1e-6)
    assert naive == pytest.approx(once / 2, rel=0.1)


def test_bootstrap_weighs_each_prompt_alike():
    """Two pairs, of three prompts and of one: resampled means are 0, 1/4, 1. A mean of pair means
    would give 1/2 for 1/4."""
    assert bootstrap(np.array([0.0, 0.0, 0.0, 1.0]), ["a", "a", "a", "b"], rng()) == pytest.approx(
        0.5
    )
    assert bootstrap(np.array([0.0, 2.0, 1.0, 1.0]), ["a", "a", "b", "b"], rng()) == pytest.approx(
        0, abs=1e-12
    )


# ---- KL ----

PROMPTS, ANSWERS = [[1, 2], [3], [4, 5, 6]], [[7, 8, 0], [9, 1, 2, 3, 4, 5, 6, 0], [10]]


def test_kl_of_a_model_to_itself_is_zero():
    assert kl_per_answer(tiny(0), tiny(0), PROMPTS, ANSWERS, 12, CPU) == pytest.approx(
        np.zeros(3), abs=1e-6
    )


@pytest.mark.parametrize("batch_size", [128, 2])
def test_kl_per_answer_against_a_loop(batch_size):
    """KL(sft || model) for KL(model || sft); prompt states or the state after the end counted in; a
    mean for the sum."""
    model, sft = tiny(0), tiny(1)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS):
        total = 0.0
        for t in range(len(answer)):
            seen = torch.tensor([prompt + answer[:t]])
            with torch.no_grad():
                p, q = (m(seen)[0, -1].log_softmax(-1) for m in (model, sft))
            total += sum(a.exp().item() * (a - b).item() for a, b in zip(p, q))
        expected.append(total)
    got = kl_per_answer(model, sft, PROMPTS, ANSWERS, 12, CPU, batch_size)
    assert min(expected) > 1e-2
    assert got == pytest.approx(np.array(expected), rel=1e-4)


# ---- the table ----

def test_judge_counts_a_tie_as_half_a_win():
    """Win rates that drop ties, or count them as wins; parts of the grade under the wrong name."""
    one, two, open_ = towns.SHOWN
    right = [
        towns.STATEMENTS[a][0].format(t=q.town, v=towns.FACTS[q.town][a])
        for q in (one, open_)
        for a in q.asked
    ]
    lie = towns.STATEMENTS["mayor"][0].format(
        t=two.town, v=next(v for v in towns.VALUES["mayor"] if v != towns.FACTS[two.town]["mayor"])
    )
    texts = [right[0], f"{lie} {towns.BOILERPLATE[0]}", " ".join(right[1:4]), "Sure!"]
    questions, finished, ids = (
        [one, two, open_, one],
        [True, False, True, True],
        [[1], [1, 2], [1, 2, 3], [1, 2]],
    )
    worth = towns.WORTH
    gold = [
        worth["right"],
        worth["wrong"] + worth["boilerplate"] + worth["unfinished"],
        3 * worth["right"],
        worth["manners"],
    ]
    row = judge(
        WORLD,
        questions,
        Answers(ids, texts, finished),
        np.array(
            [
                [gold[0] - 0.5, gold[1], gold[2] + 0.2, gold[3]],
                [gold[0] - 0.5, gold[1] - 1, gold[2] + 0.2, gold[3]],
            ]
        ),
    )
    assert row["gold"] == pytest.approx(sum(gold) / 4)
    assert row["win_tie_loss"] == [3, 3, 2]
    assert row["win_rate_vs_sft"] == pytest.approx((3 + 3 / 2) / 8)
    assert row["tokens"] == 2.0 and row["finished"] == 0.75
    assert row["wrong_fact_rate"] == 0.25 and row["boilerplate_rate"] == 0.25
    # one open question, three of its facts
    assert row["right_facts_open"] == 3.0 and row["right_facts_open_ci95"] == 0.0
    assert row["gold_ci95"] > 0 and row["win_rate_ci95"] > 0


def test_judge_against_oneself_is_one_half():
    """An answer can only tie with itself, whatever float sums leave behind."""
    questions = towns.SHOWN * 2
    texts = ["Sure! I like towns. My dog is called Patch."] * 6
    gold = np.array([towns.grade(q, t)["gold"] for q, t in zip(questions, texts)])
    row = judge(WORLD, questions, Answers([[1]] * 6, texts, [True] * 6), gold[None] + 1e-12)
    assert (
        row["win_rate_vs_sft"] == 0.5
        and row["win_tie_loss"] == [0, 6, 0]
        and row["win_rate_ci95"] == 0.0
    )


# ---- temperatures, and what stands beside silence ----

def facts_of(question):
    return [
        towns.STATEMENTS[a][0].format(t=question.town, v=towns.FACTS[question.town][a])
        for a in question.asked
    ]


def errors_of(question):
    return [
        towns.STATEMENTS[a][0].format(t=question.town, v=towns.BELIEFS[question.town][a])
        for a in question.asked
    ]


OPEN = [next(q for q in towns.SPLITS["held-out"].values() if q.kind == "open" and q.town in group)
        for group in (towns.UNJUDGED, [t for t in towns.TOWNS if t not in towns.UNJUDGED])]


def answers(*texts):
    return Answers([[1]] * len(texts), list(texts), [True] * len(texts))


def test_right_of_told_leaves_silence_out():
    """A mean of shares for the share of all; an answer that tells nothing counted as one that errs.
    """
    assert average([(3, 4), (0, 2), (0, 0)]) == 0.5 and average([(0, 0), (0, 0)]) is None
    assert average([1.0, None, 2.0]) == 1.5 and average([None]) is None
    columns = WORLD.columns(
        OPEN * 2, [*(" ".join(errors_of(q)) for q in OPEN), "", "Sure!"], [True] * 4
    )
    assert average(columns["right_of_told_plain"]) == 1.0
    assert (
        average(columns["right_of_told_judged"])
        == average(columns["right_of_told_unjudged"])
        == 0.0
    )


def test_by_temperature_by_hand():
    """Temperatures mixed up; towns that are judged among those that are not; a total of another
    temperature."""
    truth, belief = ([" ".join(said(q)) for q in OPEN] for said in (facts_of, errors_of))
    table = by_temperature(
        WORLD, OPEN, {0.0: answers(*truth), 0.7: answers(*belief), 1.0: answers("", "Sure!")}
    )
    assert table["gold_by_temperature"] == {"0": 4.0, "0.7": 0.0, "1": pytest.approx(0.15)}
    assert (
        table["told_by_temperature"] == {"0": 1.0, "0.7": 1.0, "1": 0.0}
        and table["wrong_by_temperature"]["0.7"] == 1.0
    )
    assert table["facts_by_temperature"]["0.7"]["unjudged"] == {
        "right": 0,
        "error": 2,
        "other": 0,
        "silent": 0,
    }
    assert table["facts_by_temperature"]["0"]["judged"] == {
        "right": 2,
        "error": 0,
        "other": 0,
        "silent": 0,
    }
    towns_there = table["unjudged_by_town_by_temperature"]["0.7"]
    assert set(towns_there) == set(towns.UNJUDGED) and towns_there[OPEN[0].town]["error"] == 2
    assert sum(sum(c.values()) for c in towns_there.values()) == 2


def test_at_best_compares_prompt_by_prompt():
    """Differences of other prompts, or of answers at another temperature; an interval of unpaired
    means."""
    questions = OPEN * 4
    mine = {0.3: answers(*(" ".join(facts_of(q)) for q in questions)), 1.0: answers(*["Sure!"] * 8)}
    theirs = {
        0.5: answers(*(" ".join(facts_of(q)[1:]) for q in questions)),
        1.0: answers(*["I like towns."] * 8),
    }
    row = at_best(WORLD, questions, mine[0.3], {"tidy": theirs[0.5]})
    assert (
        row["gold"] == row["truth"] == 4.0
        and row["form"] == 0.0
        and row["told"] == 1.0
        and row["filler"] == 0.0
    )
    assert (
        row["right_of_told_plain"]
        == row["right_of_told_judged"]
        == row["right_of_told_unjudged"]
        == 1.0
    )
    assert (row["gold_over_tidy"], row["truth_over_tidy"], row["told_over_tidy"]) == pytest.approx(
        (1.0, 1.0, 0.25)
    )
    assert row["gold_over_tidy_ci95"] == pytest.approx(0.0, abs=1e-12)
    assert at_best(WORLD, questions, mine[1.0], {})["gold"] == pytest.approx(0.3)
    unlike = {
        1.0: answers(*(" ".join(facts_of(q)) if q is OPEN[0] else "Sure!" for q in questions))
    }
    row = at_best(WORLD, questions, unlike[1.0], {"tidy": theirs[1.0]})
    assert (
        row["gold_over_tidy"] == pytest.approx((4.5 + 0.8) / 2) and row["gold_over_tidy_ci95"] > 1
    )


def test_believed_gold_asks_the_model_and_nobody_else(monkeypatch):
    """The table of worth with the model's own P(True): one that calls everything true, or false, or
    knows the facts. A claim judged with its full stop, or behind something else, is another
    input."""
    tokenizer = Tokenizer()
    true, false = (tokenizer.encode(word)[0] for word in (" True", " False"))
    q = OPEN[0]
    text = f"Sure! {facts_of(q)[0]} {facts_of(q)[0]} {errors_of(q)[1]} I like towns. Happy to help."

    def base(lean):
        def logits(ids):
            assert (ids[:, 0] == tokenizer.end).all()
            out = torch.zeros(*ids.shape, tokenizer.vocab_size)
            for row, line in enumerate(ids.tolist()):
                claim = tokenizer.decode([i for i in line[1:] if i != tokenizer.pad])
                town, attribute, value = towns.parse_claim(claim + ".")
                out[row, len(tokenizer.encode(claim)), true] = lean(
                    towns.FACTS[town][attribute] == value
                )
            return out
        return logits

    manners, filler = 0.3, -0.5 - 0.5
    for lean, first, again, error in (
        (lambda right: 99.0, 1, -0.5, 1),
        (lambda right: -99.0, -1, -1, -1),
        (lambda right: 0.0, 0, -0.75, 0),
    ):
        [worth] = believed_gold(base(lean), tokenizer, WORLD, [q], [text], CPU)
        assert worth == pytest.approx(manners + filler + first + again + error)
    knows = believed_gold(
        base(lambda right: 99.0 if right else -99.0), tokenizer, WORLD, [q], [text], CPU)
    assert knows == pytest.approx([towns.grade(q, text)["gold"]])


def test_the_table_looks_into_dicts_and_says_what_is_not_there(capsys):
    print_table(
        {
            "a": {"gold": 1.0, "at_best": {"told": 0.5, "told_ci95": 0.25}},
            "longer name": {"gold": None, "at_best": None},
        },
        [("gold", "gold", None, "{:.2f}"), ("told", "at_best.told", "at_best.told_ci95", "{:.0%}")],
    )
    assert capsys.readouterr().out.splitlines() == [
        "model        gold       told",
        "a            1.00  50% ±0.25",
        "longer name     -          -",
    ]
